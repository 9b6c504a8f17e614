from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointloom.data.intake import Intake
from pointloom.data.originals import is_generated, load_original
from pointloom.data.quarantine import RejectedError
from pointloom.data.records import ObjectRecord
from pointloom.data.sources import SourceObject, list_synthetic
from pointloom.data.surfaces import Surface


def prepare(folder: Path, source: SourceObject) -> tuple[ObjectRecord, np.ndarray]:
    record, points = Intake(folder=folder, num_points=128, seed=3, up="auto", max_file_mb=10.0)(source)
    return record, points.coord


def reload(folder: Path, record: ObjectRecord) -> Surface:
    shape = load_original(folder, uid=record.uid, path=record.path, sha256=record.sha256)
    assert isinstance(shape, Surface)
    return shape


def off_surface(shape: Surface, record: ObjectRecord, coord: np.ndarray) -> float:
    """Largest distance of stored points from the reloaded shape in the object frame."""
    transform = np.array(record.transform).reshape(4, 4)
    mesh = trimesh.Trimesh(shape.vertices @ transform[:3, :3].T + transform[:3, 3], shape.faces, process=False)
    triangles = mesh.triangles
    nearest = [
        np.linalg.norm(trimesh.triangles.closest_point(triangles, np.tile(p, (len(triangles), 1))) - p, axis=1).min()
        for p in coord[:24].astype(float)
    ]
    return float(max(nearest))


@pytest.mark.parametrize("suffix", [".off", ".glb"])  # z up and y up
def test_the_reloaded_file_fits_the_stored_points(tmp_path: Path, suffix: str) -> None:
    trimesh.creation.cone(radius=1, height=3).export(tmp_path / f"cone{suffix}")
    source = SourceObject(path=f"cone{suffix}", category=None, name="cone", group="cone", split="train")
    record, coord = prepare(tmp_path, source)
    assert off_surface(reload(tmp_path, record), record, coord) < 1e-5


@pytest.mark.parametrize("which", [0, 30, 45])  # the last one is unlabelled
def test_generated_objects_are_generated_again(tmp_path: Path, which: int) -> None:
    source = list_synthetic(40, seed=3, unlabelled=10, test_fraction=0.25)[which]
    record, coord = prepare(tmp_path, source)
    assert is_generated(uid=record.uid, path=record.path)
    assert off_surface(reload(tmp_path, record), record, coord) < 1e-5


def test_a_users_folder_may_be_called_synthetic() -> None:
    source = SourceObject(path="synthetic/a-0-000001.off", category=None, name="a", group="a")
    assert not is_generated(uid=source.uid, path=source.path)


def test_a_file_that_was_edited_or_removed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.off"
    trimesh.creation.box().export(path)
    record, _ = prepare(tmp_path, SourceObject(path="a.off", category=None, name="a", group="a", split="train"))
    trimesh.creation.icosphere().export(path)
    with pytest.raises(RejectedError, match=r"changed: .*a\.off was edited after it was prepared"):
        reload(tmp_path, record)
    path.unlink()
    with pytest.raises(RejectedError, match=r"changed: .*a\.off is not there any more"):
        reload(tmp_path, record)
    with pytest.raises(RejectedError, match="changed: this version generates another object"):
        load_original(tmp_path, uid="synthetic-chair-0-000008", path="synthetic/chair-0-000008", sha256="0" * 64)
