from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.distance import cdist

from pointloom.data.folder import list_folder
from pointloom.data.intake import TO_Z_UP, Intake, object_frame, up_axis
from pointloom.data.quarantine import REASONS, RejectedError
from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.sources import list_synthetic


def intake(folder: Path, **changes: object) -> Intake:
    values = {"folder": folder, "num_points": 256, "seed": 0, "up": "auto", "max_file_mb": 10.0} | changes
    return Intake(**values)  # type: ignore[arg-type]


def prepare_listed(path: Path, **changes: object) -> tuple[ObjectRecord, ObjectPoints]:
    (source,) = list_folder(path.parent, test_fraction=0.25, seed=0).objects
    return intake(path.parent, **changes)(source)


def tower(path: Path, axis: int) -> Path:
    """A tower of 1 x 2 x 6 with a wide foot, standing along an axis, away from the origin."""
    extents = np.roll([1.0, 2.0, 6.0], axis - 2)
    foot = np.roll([2.0, 3.0, 0.5], axis - 2)
    offset = np.zeros(3)
    offset[axis] = -3
    mesh = trimesh.util.concatenate(
        [trimesh.creation.box(extents=extents), trimesh.creation.box(extents=foot).apply_translation(offset)]
    )
    mesh.apply_translation([100, -50, 7]).export(path)
    return path


@pytest.mark.parametrize(
    ("suffix", "up", "axis"), [("glb", "auto", 1), ("stl", "auto", 2), ("off", "x", 0), ("obj", "z", 2)]
)
def test_objects_stand_upright_centred_in_the_unit_sphere(tmp_path: Path, suffix: str, up: str, axis: int) -> None:
    record, points = prepare_listed(tower(tmp_path / f"a.{suffix}", axis), up=up, num_points=4096)
    extent = np.ptp(points.coord, axis=0)
    assert extent.argmax() == 2
    assert points.coord[np.argsort(points.coord[:, 2])[:800], 2].max() < 0  # the heavy foot is below
    assert np.linalg.norm(points.coord, axis=1).max() <= 1 + 1e-6
    np.testing.assert_allclose(points.coord.max(axis=0) + points.coord.min(axis=0), 0, atol=0.03)
    assert record.num_faces == 24


def test_transform_takes_source_vertices_to_the_unit_sphere_exactly(tmp_path: Path) -> None:
    path = tower(tmp_path / "a.glb", 1)
    transform = np.array(prepare_listed(path)[0].transform).reshape(4, 4)
    vertices = trimesh.load_mesh(path).vertices @ transform[:3, :3].T + transform[:3, 3]
    np.testing.assert_allclose(vertices.max(axis=0), -vertices.min(axis=0), atol=1e-9)
    assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(1)


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_up_axes_are_turned_never_mirrored(up: str) -> None:
    rotation = TO_Z_UP[up]
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3))
    np.testing.assert_allclose(rotation @ np.eye(3)["xyz".index(up)], [0, 0, 1])


def test_frame_does_not_depend_on_position_and_size() -> None:
    coord = np.random.default_rng(0).normal(size=(50, 3))
    frames = [object_frame(c, "y") for c in (coord, coord * 1000 + 1e6)]
    placed = [c @ f[:3, :3].T + f[:3, 3] for c, f in zip((coord, coord * 1000 + 1e6), frames, strict=True)]
    np.testing.assert_allclose(placed[0], placed[1], atol=1e-6)


def test_a_dae_file_that_declares_its_up_axis_is_believed(tmp_path: Path) -> None:
    (tmp_path / "a.dae").write_text("<asset><up_axis>Y_UP</up_axis></asset>")
    assert up_axis(tmp_path / "a.dae", "auto") == "y"
    assert up_axis(tmp_path / "a.dae", "x") == "x"
    (tmp_path / "a.dae").write_text("<asset/>")
    assert up_axis(tmp_path / "a.dae", "auto") == "z"


def test_every_prefix_is_a_farthest_point_subset(tmp_path: Path) -> None:
    points = prepare_listed(tower(tmp_path / "a.stl", 2))[1].coord
    distance = cdist(points, points)
    for k in (1, 2, 5, 50, 200):
        to_chosen = distance[:, :k].min(axis=1)
        assert to_chosen[k] == pytest.approx(to_chosen.max(), rel=1e-4)


def test_normals_and_colours_follow_the_points(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    colors = np.zeros((len(ball.vertices), 4), dtype=np.uint8)
    colors[:, 0] = np.where(ball.vertices[:, 1] > 0, 255, 0)  # y of the file is up in the store
    ball.visual = trimesh.visual.ColorVisuals(mesh=ball, vertex_colors=colors)
    ball.export(tmp_path / "a.ply")
    points = prepare_listed(tmp_path / "a.ply", up="y")[1]
    assert np.einsum("ni,ni->n", points.coord, points.normal).min() > 0.98
    clear = np.abs(points.coord[:, 2]) > 0.15
    np.testing.assert_array_equal(points.color[clear, 0] == 255, points.coord[clear, 2] > 0)


def test_points_do_not_depend_on_the_other_objects_and_do_on_the_seed(tmp_path: Path) -> None:
    path = tower(tmp_path / "a.stl", 2)
    alone = prepare_listed(path)[1].coord
    np.testing.assert_array_equal(prepare_listed(path)[1].coord, alone)
    assert not np.array_equal(prepare_listed(path, seed=1)[1].coord, alone)


def test_synthetic_objects_keep_parts_words_and_colours(tmp_path: Path) -> None:
    (source,) = list_synthetic(1, seed=0, unlabelled=0, test_fraction=0.25)
    record, points = intake(tmp_path)(source)
    assert record.category == source.name == "airplane"
    assert record.captions
    assert record.attributes
    assert points.segment is not None
    assert len(np.unique(points.segment)) > 1
    assert np.unique(points.color, axis=0).tolist() == [[120, 117, 125]]


def test_large_and_empty_files_are_refused_before_they_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_bytes(b"0" * 3_000_000)
    with pytest.raises(RejectedError, match="too_large: 3 MB, the limit max_file_mb is 2"):
        prepare_listed(tmp_path / "a.stl", max_file_mb=2.0)
    (tmp_path / "a.stl").write_bytes(b"")
    with pytest.raises(RejectedError, match="empty: the file has 0 bytes"):
        prepare_listed(tmp_path / "a.stl")


def test_reasons_are_a_closed_set() -> None:
    with pytest.raises(ValueError, match="unknown reason 'odd'; known: unreadable"):
        RejectedError("odd", "")
    assert all(reason.isidentifier() for reason in REASONS)
