from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointloom.data.folder import list_folder
from pointloom.data.intake import Intake
from pointloom.data.quarantine import RejectedError
from pointloom.encode import MAX_FILE_MB, SURFACE_POINTS, read_shape


@pytest.mark.parametrize("up", [None, "x"])
def test_a_file_alone_gives_the_points_that_prepare_makes_of_it_in_its_folder(tmp_path: Path, up: str | None) -> None:
    path = tmp_path / "box.glb"
    trimesh.creation.box(extents=(1, 2, 6)).apply_translation([100, -50, 7]).export(path)
    (source,) = list_folder(tmp_path, test_fraction=0.25, seed=0).objects
    intake = Intake(tmp_path, num_points=SURFACE_POINTS, seed=0, up=up or "auto", max_file_mb=MAX_FILE_MB)
    np.testing.assert_array_equal(read_shape(path, num_points=64, up=up).coord, intake(source)[1].coord)


def test_a_file_in_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.fbx").write_text("hello")
    with pytest.raises(RejectedError, match="fbx"):
        read_shape(tmp_path / "b.fbx", num_points=64, up=None)
