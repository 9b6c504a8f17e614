from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointloom.data.folder import list_folder
from pointloom.data.intake import Intake
from pointloom.data.quarantine import RejectedError
from pointloom.encode import MAX_FILE_MB, SURFACE_POINTS, encode_files, read_shape
from pointloom.errors import CheckpointError, DataError
from pointloom.models import build_encoder
from pointloom.structures import as_module
from pointloom.train.checkpoint import save_encoder


@pytest.mark.parametrize("up", [None, "x"])
def test_a_file_alone_gives_the_points_that_prepare_makes_of_it_in_its_folder(tmp_path: Path, up: str | None) -> None:
    path = tmp_path / "box.glb"
    trimesh.creation.box(extents=(1, 2, 6)).apply_translation([100, -50, 7]).export(path)
    (source,) = list_folder(tmp_path, test_fraction=0.25, seed=0).objects
    intake = Intake(tmp_path, num_points=SURFACE_POINTS, seed=0, up=up or "auto", max_file_mb=MAX_FILE_MB)
    np.testing.assert_array_equal(read_shape(path, num_points=64, up=up).coord, intake(source)[1].coord)


def test_a_file_in_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.fbx").write_text("hello")
    with pytest.raises(RejectedError, match=r"unsupported: .fbx cannot be read; readable are .asc .*.glb .*.xyz"):
        read_shape(tmp_path / "b.fbx", num_points=64, up=None)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder above a workspace with an encoder, and a few files to encode."""
    arguments = {"num_groups": 8, "group_size": 8}
    encoder = build_encoder("point_mae_tiny", **arguments)
    save_encoder(
        tmp_path / "runs/demo/models/mae", as_module(encoder), builder="point_mae_tiny", builder_args=arguments,
        method="mae", labels="none", num_points=64, data_digest=None, params={},
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts.glb").mkdir()
    (tmp_path / "notes.md").write_text("no shape")
    trimesh.creation.box().export(tmp_path / "a b.ply")
    return tmp_path


def encode(*files: str, encoder: str = "runs/demo/models/mae", output: str = "f.npz") -> tuple[int, int]:
    return encode_files([Path(file) for file in files], encoder=encoder, output=Path(output), up=None)


def test_what_is_no_shape_is_named_and_the_rest_encoded(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = ("parts.glb", ".", "notes.md", "nowhere.ply", "a b.ply")
    assert encode(*files) == (1, 384)
    with np.load(workspace / "f.npz") as written:
        assert written["path"].tolist() == ["a b.ply"]
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("left out: ")]
    assert len(told) == 4
    assert told[0] == "left out: parts.glb is a folder; name its files, for example with parts.glb/*"
    assert "notes.md: unsupported: .md cannot be read" in told[2]
    with pytest.raises(DataError, match="none of the files could be encoded"):
        encode("notes.md")


def test_wrong_places_are_said_before_anything_is_computed(workspace: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; give --output a file to write, such as .*features.npz"):
        encode("a b.ply", output=str(workspace))
    with pytest.raises(CheckpointError, match=r"no folder models/ here .* --encoder runs/demo/models/mae$"):
        encode("a b.ply", encoder="models/mae")
