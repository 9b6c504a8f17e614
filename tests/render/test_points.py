import math

import numpy as np
import pytest

from pointloom.render.points import Camera, draw_points, shade_depth, splat_points

FRONT = Camera(azimuth=0.0, elevation=0.0, projection="orthographic", extent=1.0, distance=4.0)  # looks along -X
RED, BLUE = (255, 0, 0), (0, 0, 255)


def cloud(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def colors(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)


def test_nearer_point_hides_farther_one_whatever_their_order() -> None:
    near, far = (0.5, 0.0, 0.0), (-0.5, 0.0, 0.0)
    for coord, color in ((cloud(near, far), colors(RED, BLUE)), (cloud(far, near), colors(BLUE, RED))):
        splat = splat_points(coord, color=color, camera=FRONT, size=4, radius=0.0)
        assert tuple(splat.rgb[2, 2]) == RED
        assert splat.depth[2, 2] == pytest.approx(3.5)
        assert np.isfinite(splat.depth).sum() == 1


def test_hand_computed_pixels_of_the_four_quarters() -> None:
    # Seen from +X, +Y is right and +Z is up: (y, z) = (-0.5, 0.5) is the upper left quarter of a 2 x 2 picture.
    coord = cloud((0, -0.5, 0.5), (0, 0.5, -0.5))
    splat = splat_points(coord, color=colors(RED, BLUE), camera=FRONT, size=2, radius=0.0)
    expected = np.full((2, 2, 3), 255)
    expected[0, 0], expected[1, 1] = RED, BLUE
    np.testing.assert_array_equal(splat.rgb, expected)


def test_disc_of_radius_one_is_a_plus_sign() -> None:
    splat = splat_points(cloud((0, 0, 0)), camera=FRONT, size=5, radius=1.0)
    expected = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(np.isfinite(splat.depth), expected.astype(bool))


def test_splatting_equals_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    coord = rng.uniform(-0.9, 0.9, size=(200, 3)).astype(np.float32)
    camera, size = Camera(azimuth=30.0, elevation=20.0), 16
    splat = splat_points(coord, camera=camera, size=size, radius=1.0)
    expected = np.full((size, size), np.inf)
    for x, y, depth in camera.project(coord):
        column, row = math.floor((x + 1) / 2 * size), math.floor((1 - y) / 2 * size)
        for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
            if 0 <= row + dy < size and 0 <= column + dx < size:
                expected[row + dy, column + dx] = min(expected[row + dy, column + dx], depth)
    np.testing.assert_allclose(splat.depth, expected, rtol=1e-6)


def test_perspective_draws_nearer_things_larger_and_drops_what_is_behind_the_camera() -> None:
    camera = Camera(azimuth=0.0, elevation=0.0, projection="perspective", extent=1.0, distance=2.0)
    x, y, depth = camera.project(cloud((1, 0.25, 0), (0, 0.25, 0), (3, 0, 0))).T
    assert x[:2] == pytest.approx([0.5, 0.25])
    assert depth == pytest.approx([1, 2, -1])
    assert y == pytest.approx([0, 0, 0], abs=1e-6)
    assert not np.isfinite(splat_points(cloud((3, 0, 0)), camera=camera, size=8).depth).any()


def test_up_axis_is_up_from_every_azimuth() -> None:
    for azimuth in np.arange(0.0, 360.0, 45.0):
        splat = splat_points(cloud((0, 0, 0.8)), camera=Camera(azimuth=float(azimuth), elevation=25.0), size=8)
        assert np.flatnonzero(np.isfinite(splat.depth).any(axis=1)).max() < 4


def test_points_that_are_not_finite_are_skipped_and_nothing_is_a_white_picture() -> None:
    bad = splat_points(cloud((np.nan, 0, 0)), size=4)
    assert (bad.rgb == 255).all()
    assert (draw_points(np.zeros((0, 3), dtype=np.float32), size=8) == 255).all()


def test_shading_darkens_what_lies_behind_and_keeps_the_background_white() -> None:
    flat = cloud(*[(0, y, z) for y in np.linspace(-0.9, 0.9, 30) for z in np.linspace(-0.9, 0.9, 30)])
    step = flat.copy()
    step[step[:, 1] > 0, 0] = 0.5  # the right half is nearer
    splat = splat_points(step, color=np.full(step.shape, 200, np.uint8), camera=FRONT, size=20, radius=1.0)
    shaded = shade_depth(splat, outline=0.0)
    assert shaded[10, 8, 0] < 150  # beside the step, on the far side; the discs of the near side begin at column 9
    assert shaded[10, 14, 0] == 200
    assert (shaded[~np.isfinite(splat.depth)] == 255).all()


@pytest.mark.parametrize(("size", "rows", "message"), [(0, 2, "size is 0"), (8, 3, "color has 3 rows for 2 points")])
def test_wrong_arguments_name_the_value(size: int, rows: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splat_points(np.zeros((2, 3), np.float32), color=np.zeros((rows, 3), np.uint8), size=size)
