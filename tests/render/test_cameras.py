import math

import numpy as np
import pytest

from pointloom.render.cameras import LAYOUTS, Rig
from pointloom.render.points import Camera
from pointloom.render.samples import SampleGrid, shrink


def project(rig: Rig, point: np.ndarray, view: int) -> np.ndarray:
    """Return (column, row) of a point by the textbook: into the camera's frame, then through K."""
    x, y, z = np.linalg.inv(rig.poses[view])[:3] @ np.append(point, 1)
    column, row, scale = rig.intrinsics @ np.array([x, -y, -z])
    return np.array([column, row]) / scale


@pytest.mark.parametrize("layout", LAYOUTS)
def test_poses_are_rotations_that_look_at_the_origin_with_z_up(layout: str) -> None:
    rig = Rig(layout=layout, size=100, fov_degrees=40.0)
    assert rig.poses.shape == (len(LAYOUTS[layout]), 4, 4)
    for view, pose in enumerate(rig.poses):
        turn = pose[:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-6)
        assert np.linalg.norm(pose[:3, 3]) == pytest.approx(rig.distance, abs=1e-5)
        np.testing.assert_allclose(project(rig, np.zeros(3), view), [50, 50], atol=1e-4)
        column, row = project(rig, np.array([0, 0, 0.5]), view)
        assert row < 50
        assert column == pytest.approx(50, abs=1e-4)


def test_openshape12_has_the_angles_of_the_script() -> None:
    position = Rig(layout="openshape12", size=8, fov_degrees=40.0).poses[:, :3, 3]
    polar = np.degrees(np.arccos(position[:, 2] / np.linalg.norm(position, axis=1)))
    azimuth = np.degrees(np.arctan2(position[:, 1], position[:, 0])) % 360
    np.testing.assert_allclose(polar, [60] * 4 + [90] * 4 + [120] * 4, atol=1e-4)
    expected = [30, 120, 210, 300, 60, 150, 240, 330, 0, 90, 180, 270]
    np.testing.assert_allclose((azimuth - expected + 180) % 360, 180, atol=1e-4)


def test_ulip30_goes_round_in_steps_of_12_degrees() -> None:
    azimuth, elevation = np.array(LAYOUTS["ulip30"]).T
    np.testing.assert_allclose(np.diff(azimuth), 12)
    np.testing.assert_allclose(np.tan(np.radians(elevation)), 0.6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fov", [20.0, 40.0, 90.0])
def test_the_bounding_sphere_always_fits(layout: str, fov: float) -> None:
    rig = Rig(layout=layout, size=100, fov_degrees=fov)
    direction = np.random.default_rng(0).normal(size=(500, 3))
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    pixels = np.array([project(rig, point, 3) for point in unit])
    assert (np.abs(pixels - 50) < 50).all()
    assert np.abs(pixels - 50).max() > 43


def test_projection_of_clouds_and_matrices_agree() -> None:
    rig = Rig(layout="openshape12", size=100, fov_degrees=40.0)
    points = np.random.default_rng(0).uniform(-0.6, 0.6, size=(50, 3)).astype(np.float32)
    for view, camera in enumerate(rig.cameras):
        x, y, _ = camera.project(points).T
        expected = np.array([project(rig, point, view) for point in points])
        np.testing.assert_allclose(np.stack([(x + 1) * 50, (1 - y) * 50], axis=1), expected, atol=1e-3)


@pytest.mark.parametrize("elevation", [90.0, -90.0])
def test_up_at_a_pole_is_that_of_the_cameras_beside_it(elevation: float) -> None:
    axes = Camera(azimuth=-90.0, elevation=elevation).axes()
    beside = Camera(azimuth=-90.0, elevation=elevation * 0.9999).axes()
    np.testing.assert_allclose(axes, beside, atol=1e-3)
    np.testing.assert_allclose(np.abs(axes[1]), [0, 1, 0], atol=1e-6)
    assert np.linalg.det(axes.astype(float)) == pytest.approx(1, abs=1e-6)


def test_an_unknown_layout_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown layout 'cube'; known: openshape12, ulip30"):
        Rig(layout="cube", size=8, fov_degrees=40.0)


@pytest.mark.parametrize("supersample", [1, 2, 3, 4])
def test_one_sample_lies_in_the_centre_of_every_pixel(supersample: int) -> None:
    rig = Rig(layout="openshape12", size=6, fov_degrees=40.0)
    grid = SampleGrid(rig, supersample)
    rays = grid.directions().reshape(grid.side, grid.side, 3)
    chosen = np.stack([grid.centers(rays[..., axis].astype(np.float32)) for axis in range(3)], axis=-1)
    for row in range(6):
        for column in range(6):
            x, y, _ = np.linalg.inv(rig.intrinsics) @ np.array([column + 0.5, row + 0.5, 1])
            np.testing.assert_allclose(chosen[row, column], [x, -y, -1], atol=1e-6)


def test_the_depth_buffer_becomes_distance_along_the_axis_of_view() -> None:
    grid = SampleGrid(Rig(layout="openshape12", size=4, fov_degrees=40.0), 1)
    clip = grid.projections[4] @ np.append(0.3 * grid.rig.poses[4, :3, 3] / grid.rig.distance, 1)
    buffer = np.full((4, 4), (clip[2] / clip[3] + 1) / 2, dtype=np.float32)
    buffer[0] = 1
    expected = np.full((4, 4), grid.rig.distance - 0.3)
    expected[0] = 0
    np.testing.assert_allclose(grid.eye_depth(buffer), expected, atol=1e-5)


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_colour_is_the_mean_of_the_samples(supersample: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, size=(12, 12, 3), dtype=np.uint8)
    blocks = rgb.reshape(12 // supersample, supersample, 12 // supersample, supersample, 3)
    np.testing.assert_allclose(shrink(rgb, supersample), blocks.mean(axis=(1, 3)), atol=0.6)
    assert math.isclose(shrink(np.full((4, 4, 3), 255, np.uint8), 2).mean(), 255)
