"""Corners, overlaps and hulls of oriented boxes, against Shapely."""

import math

import numpy as np
import pytest

from pointloom.data.scene_boxes import axis_aligned, footprints, footprints_overlap
from pointloom.data.scenes import SceneBoxes

shapely = pytest.importorskip("shapely")


def draw_boxes(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (num, 3)), rng.uniform(0.1, 1.2, (num, 3)), rng.uniform(-4, 4, num)


def test_heading_turns_counter_clockwise_seen_from_above() -> None:
    corners = footprints(np.zeros((1, 3)), np.array([[2.0, 0.0, 1.0]]), np.array([math.pi / 6]))[0]
    assert corners[1] == pytest.approx([math.cos(math.pi / 6), math.sin(math.pi / 6)])


def test_overlaps_are_those_that_shapely_finds() -> None:
    corners = footprints(*draw_boxes(60))
    shapes = [shapely.Polygon(rectangle) for rectangle in corners]
    found = np.stack([footprints_overlap(one, corners) for one in corners])
    expected = np.array([[a.intersection(b).area > 0 for b in shapes] for a in shapes])
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(found, expected)


def test_hull_along_the_axes_is_tight() -> None:
    center, size, heading = (array.astype(np.float32) for array in draw_boxes(20))
    boxes = SceneBoxes(center, size, heading, np.zeros(20, dtype=np.int64), np.arange(20))
    hull = axis_aligned(boxes)
    low, high = hull.center - hull.size / 2, hull.center + hull.size / 2
    for i, rectangle in enumerate(footprints(center, size, heading)):
        bounds = shapely.Polygon(rectangle).bounds
        assert [*low[i, :2], *high[i, :2]] == pytest.approx(bounds, abs=1e-5)
    assert not hull.heading.any()
    assert np.array_equal(hull.size[:, 2], size[:, 2])
