"""A stage split over steps, run by KFP's own local orchestrator: the same components, processes instead of pods."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from kfp import local
from kfp.local import subprocess_task_handler

from pipelines.cluster import read_cluster
from pipelines.compile import component_of
from pipelines.run import here
from pipelines.settings import load_params, profile_file
from pipelines.single import build_single

PREPARE = {"num_objects": 12, "unlabelled_synthetic": 3, "num_points": 32, "num_workers": 1}


def store_of(folder: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Run ``prepare`` in so many parts; returns the files of the store."""
    for name in ("artifacts", "state", "raw"):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(folder)
    params = load_params(profile_file("pretrain", "smoke"))
    params["prepare"] |= PREPARE
    cluster = here(read_cluster()).model_copy(update={"shards": {"prepare": shards}})
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "artifacts"), enable_caching=False,
        raise_on_error=True,
    )  # fmt: skip
    graph: Any = build_single(component_of("prepare"), "prepare", "", params, cluster, inputs={}, tag="test")
    graph(source=str(folder / "raw"), state=str(folder / "state"))
    (made,) = folder.glob("artifacts/*/prepare/dataset")
    return {p.relative_to(made).as_posix(): p.read_bytes() for p in made.rglob("*") if p.is_file()}


@pytest.mark.filterwarnings("ignore:Task .* no effect in the current local runner")
def test_parts_and_then_the_step_make_what_one_step_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace = Path(sys.prefix).with_name(Path(sys.prefix).name.removesuffix("-kubeflow")) / "bin"
    if not shutil.which("pointloom", path=str(workspace)):
        pytest.skip("the command pointloom is not installed beside .venv-kubeflow")
    monkeypatch.setenv("PATH", str(workspace), prepend=":")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # kfp starts container components in Docker only; what it would start there is the command that is started here
    handler = subprocess_task_handler.SubprocessTaskHandler
    monkeypatch.setattr(handler, "validate_not_container_component", lambda *_: None)
    monkeypatch.setattr(handler, "validate_image", lambda *_: None)

    whole = store_of(tmp_path / "whole", 1, monkeypatch)
    assert "shard" not in capfd.readouterr().out
    split = store_of(tmp_path / "split", 3, monkeypatch)
    said = capfd.readouterr().out
    assert all(f"shard {index}-of-3: 5 objects are kept" in said for index in range(3))
    assert "15 of 15 objects are done" in said
    assert split == whole
    assert json.loads(split["dataset.json"])["counts"]["objects"] == 15
    assert not list((tmp_path / "split/state/prepare").glob("*"))
