import numpy as np
import pytest
from render_scenes import BLUE, RED, grid

from pointloom.render.points import Splat
from pointloom.render.samples import shrink
from pointloom.render.splat import disc_radius, draw_cloud, fill_holes


def sphere(num: int, radius: float = 0.8) -> np.ndarray:
    direction = np.random.default_rng(0).normal(size=(num, 3))
    return (radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)).astype(np.float32)


def views(coord: np.ndarray, *, color: np.ndarray | None = None, size: int = 112) -> tuple[np.ndarray, np.ndarray]:
    normal = coord / np.maximum(np.linalg.norm(coord, axis=1, keepdims=True), 1e-6)
    color = np.full(coord.shape, 200, np.uint8) if color is None else color
    samples = grid(size=size)
    drawn = list(draw_cloud(coord, normal=normal.astype(np.float32), color=color, grid=samples))
    return np.stack([shrink(d.rgb, 2) for d in drawn]), np.stack([d.depth for d in drawn])


@pytest.mark.parametrize("num", [2_000, 8_192])
def test_a_cloud_covers_what_its_surface_covers(num: int) -> None:
    _, depth = views(sphere(num))
    distance, focal = grid().rig.distance, grid(size=112).rig.intrinsics[0, 0]
    outline = focal * 0.8 / np.sqrt(distance**2 - 0.8**2)  # radius of the ball's outline in pixels
    expected = np.pi * outline**2 / 112**2
    grown = expected * (1 + disc_radius(sphere(num)) / 0.8) ** 2
    covered = (depth > 0).mean(axis=(1, 2))
    assert (covered > 0.99 * expected).all()
    assert (covered < 1.1 * grown).all()
    inside = depth[:, 46:66, 46:66]
    assert (inside > 0).mean() > 0.999, "no holes in the middle"
    assert (inside > distance).mean() < 0.08, "little shines through from behind"


def test_the_nearer_point_hides_the_farther_one_and_light_falls_from_the_camera() -> None:
    toward = grid().rig.poses[4, :3, 3].astype(np.float32)
    toward /= np.linalg.norm(toward)
    coord = np.stack([toward * 0.5, toward * -0.5])
    rgb, depth = views(coord, color=np.array([RED, BLUE], np.uint8), size=32)
    np.testing.assert_allclose(rgb[4, 16, 16], RED, atol=1)
    assert depth[4, 16, 16] == pytest.approx(grid().rig.distance - 0.5, abs=1e-5)


def test_discs_are_as_large_as_the_distance_to_the_fourth_neighbour() -> None:
    coord = sphere(300, radius=1.0) * np.float32(0.2)
    distance = np.linalg.norm(coord[:, None].astype(float) - coord[None], axis=2)
    assert disc_radius(coord) == pytest.approx(np.median(np.sort(distance, axis=1)[:, 4]), rel=1e-4)
    assert disc_radius(sphere(3)) == 0.1
    assert disc_radius(np.zeros((5, 3), np.float32)) == 0.1


def test_repeated_points_count_once() -> None:
    few = sphere(50)
    once, many = views(few), views(np.tile(few, (40, 1)))
    np.testing.assert_array_equal(once[1], many[1])


def test_holes_are_filled_from_the_nearest_neighbour_and_outlines_stay() -> None:
    depth = np.full((7, 7), np.inf, dtype=np.float32)
    depth[1:6, 1:6] = 3
    depth[2, 2] = 2
    depth[3, 3] = np.inf
    rgb = np.full((7, 7, 3), 255, dtype=np.uint8)
    rgb[np.isfinite(depth)] = 100
    rgb[2, 2] = RED
    filled = fill_holes(Splat(rgb=rgb, depth=depth))
    assert filled.depth[3, 3] == 2
    assert tuple(filled.rgb[3, 3]) == RED
    assert np.isfinite(filled.depth).sum() == 25
    assert np.isinf(depth[3, 3]), "the input is left alone"
