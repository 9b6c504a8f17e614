"""Oriented boxes as corners and hulls; turned about +Z, counter-clockwise seen from above."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from pointloom.data.scenes import SceneBoxes

_SIGNS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


def footprints(
    center: Float[np.ndarray, "k 3"], size: Float[np.ndarray, "k 3"], heading: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "k 4 2"]:
    """Return the corners of boxes seen from above, counter-clockwise."""
    cos, sin = np.cos(heading), np.sin(heading)
    local = _SIGNS * size[:, None, :2]
    x = center[:, None, 0] + cos[:, None] * local[..., 0] - sin[:, None] * local[..., 1]
    y = center[:, None, 1] + sin[:, None] * local[..., 0] + cos[:, None] * local[..., 1]
    return np.stack([x, y], axis=-1)


def footprints_overlap(one: Float[np.ndarray, "4 2"], others: Float[np.ndarray, "k 4 2"]) -> Bool[np.ndarray, " k"]:
    """Tell which rectangles share area with one: no side of either separates them."""
    apart = np.zeros(len(others), dtype=bool)
    for side in (0, 1):
        apart |= _separated(np.broadcast_to(one[side + 1] - one[side], (len(others), 2)), one, others)
        apart |= _separated(others[:, side + 1] - others[:, side], one, others)
    return ~apart


def _separated(
    axis: Float[np.ndarray, "k 2"], one: Float[np.ndarray, "4 2"], others: Float[np.ndarray, "k 4 2"]
) -> Bool[np.ndarray, " k"]:
    mine = axis @ one.T
    theirs = np.einsum("kc,kjc->kj", axis, others)
    separated: Bool[np.ndarray, " k"] = (mine.max(axis=1) <= theirs.min(axis=1)) | (
        theirs.max(axis=1) <= mine.min(axis=1)
    )
    return separated


def axis_aligned(boxes: SceneBoxes) -> SceneBoxes:
    """Return the smallest boxes along the axes around oriented ones, as the detectors for ScanNet expect them."""
    corners = footprints(boxes.center, boxes.size, boxes.heading)
    size: NDArray[np.float32] = boxes.size.copy()
    size[:, :2] = np.ptp(corners, axis=1)
    return replace(boxes, size=size, heading=np.zeros_like(boxes.heading))
