"""The whole chain on folders of files: real meshes, and shapes without labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from tests.e2e.processes import pointloom

pytestmark = pytest.mark.slow


def run_smoke(folder: Path, workspace: Path, *more: str) -> None:
    made = pointloom("init", str(workspace), "--profile", "smoke", "--data", str(folder), *more, cwd=folder.parent)
    assert made.returncode == 0, made.stderr
    done = pointloom("run", "--workspace", str(workspace), cwd=folder.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_slice_of_real_meshes_with_lists(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "objects" / "lowpoly_cc0"
    folder = tmp_path / "slice"
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for category in sorted(path for path in source.iterdir() if path.is_dir() and path.name != "lists")[:8]:
        files = sorted(path for path in category.iterdir() if path.suffix in {".off", ".obj", ".ply", ".glb", ".stl"})
        for index, path in enumerate(files[:6]):
            target = folder / category.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            lists["test" if index % 3 == 0 else "train"].append(f"{category.name}/{path.name}")
    (folder / "broken.obj").write_text("v 0 0 nan\nf 1 1 1\n")
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    workspace = tmp_path / "ws"
    more = ["--train-list", str(tmp_path / "train.txt"), "--test-list", str(tmp_path / "test.txt")]
    run_smoke(folder, workspace, *more)
    page = (workspace / "report" / "report.md").read_text()
    assert "mae" in page


def test_folder_without_labels_gives_an_encoder_and_a_report_without_tables(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(24):
        mesh = trimesh.creation.box(extents=generator.uniform(0.2, 1, 3))
        mesh.export(folder / f"{index:02d}.ply")
    workspace = tmp_path / "ws"
    run_smoke(folder, workspace)
    assert (workspace / "models" / "mae" / "encoder.safetensors").is_file()
    assert "label" in (workspace / "report" / "report.md").read_text().lower()
    assert yaml.safe_load((workspace / "params.yaml").read_text())["prepare"]["source"] == "folder"


def test_empty_folder_and_folder_without_shapes_are_refused_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "notes.md").write_text("nothing to see")
    workspace = tmp_path / "ws"
    assert pointloom("init", str(workspace), "--profile", "smoke", "--data", str(folder), cwd=tmp_path).returncode == 0
    done = pointloom("run", "--workspace", str(workspace), cwd=tmp_path)
    assert done.returncode == 2
    assert str(folder) in done.stderr
    assert "Traceback" not in done.stderr
