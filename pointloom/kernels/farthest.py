"""Farthest point sampling, exact, with leaves of a k-d tree left out that the newest point cannot change."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pointloom.kernels.tree import PADDING, build_tree

_LEAF = 64


@njit(cache=True, nogil=True)
def fps_clouds(
    points: NDArray[np.float32],
    starts: NDArray[np.int64],
    chosen: NDArray[np.int64],
    chosen_starts: NDArray[np.int64],
    start: int,
    skip: np.float32,
) -> None:  # pragma: no cover - compiled
    """Fill ``chosen`` (q,) with samples of every cloud in ``points`` (p, 3), as many as ``chosen_starts`` says."""
    for b in range(len(starts) - 1):
        cloud = points[starts[b] : starts[b + 1]]
        fps_cloud(cloud, chosen[chosen_starts[b] : chosen_starts[b + 1]], start, skip, False)


@njit(cache=True, nogil=True)
def fps_cloud(
    points: NDArray[np.float32], chosen: NDArray[np.int64], start: int, skip: np.float32, once: bool
) -> None:  # pragma: no cover - compiled
    """Fill ``chosen`` with samples of one cloud (n, 3); ``once``: no point twice, even where several coincide."""
    slots, source, box = build_tree(points, _LEAF)
    leaves = box.shape[1] // 2
    distance = _first_distances(slots, source, skip)
    slot_of = np.empty(len(points) if once else 0, dtype=np.int32)
    if once:
        for s in range(len(source)):
            if source[s] != PADDING:
                slot_of[source[s]] = s
    farthest = np.full(leaves, np.inf, dtype=np.float32)
    near = np.empty(leaves, dtype=np.int32)
    queue = np.empty(leaves, dtype=np.int32)
    current = start
    for i in range(len(chosen)):
        chosen[i] = current
        x, y, z = points[current, 0], points[current, 1], points[current, 2]
        if once:
            home = slot_of[current] // _LEAF
            distance[slot_of[current]] = -1
            farthest[home] = _update_leaf(slots, distance, home * _LEAF, x, y, z)
        _find_near(box, farthest, x, y, z, near)
        length = 0
        for b in range(leaves):
            queue[length] = b
            length += near[b]
        for q in range(length):
            b = queue[q]
            farthest[b] = _update_leaf(slots, distance, b * _LEAF, x, y, z)
        current = _first_farthest(farthest, distance, source)


@njit(cache=True, nogil=True)
def _first_distances(
    slots: NDArray[np.float32], source: NDArray[np.int32], skip: np.float32
) -> NDArray[np.float32]:  # pragma: no cover - compiled
    """Return infinity for points that can be chosen and -1 for the others."""
    distance = np.full(len(source), np.inf, dtype=np.float32)
    for s in range(len(source)):
        x, y, z = slots[0, s], slots[1, s], slots[2, s]
        if source[s] == PADDING or (skip > 0 and x * x + y * y + z * z <= skip):
            distance[s] = -1
    return distance


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _find_near(
    box: NDArray[np.float32],
    farthest: NDArray[np.float32],
    x: np.float32,
    y: np.float32,
    z: np.float32,
    near: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Mark the leaves in which the distance of some point can fall; one run over all leaves, in vector instructions."""
    first = len(near)  # vector instructions need rows of their own, indexed from 0
    x0, y0, z0 = box[0, first:], box[1, first:], box[2, first:]
    x1, y1, z1 = box[3, first:], box[4, first:], box[5, first:]
    for b in range(len(near)):
        dx = max(max(x0[b] - x, x - x1[b]), np.float32(0))
        dy = max(max(y0[b] - y, y - y1[b]), np.float32(0))
        dz = max(max(z0[b] - z, z - z1[b]), np.float32(0))
        near[b] = np.int32(dx * dx + dy * dy + dz * dz < farthest[b])


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _update_leaf(
    slots: NDArray[np.float32],
    distance: NDArray[np.float32],
    first: int,
    x: np.float32,
    y: np.float32,
    z: np.float32,
) -> np.float32:  # pragma: no cover - compiled
    """Lower the distances of a leaf to those from a new point; return the largest that is left."""
    end = first + _LEAF
    xs, ys, zs, left = slots[0, first:end], slots[1, first:end], slots[2, first:end], distance[first:end]
    largest = np.float32(-1)
    for s in range(len(left)):  # a constant length would be unrolled instead of made vector instructions
        dx, dy, dz = xs[s] - x, ys[s] - y, zs[s] - z
        left[s] = min(left[s], dx * dx + dy * dy + dz * dz)
        largest = max(largest, left[s])
    return largest


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _first_farthest(
    farthest: NDArray[np.float32], distance: NDArray[np.float32], source: NDArray[np.int32]
) -> int:  # pragma: no cover - compiled
    """Return the lowest index among the points with the largest distance."""
    largest = np.float32(-1)
    for b in range(len(farthest)):
        largest = max(largest, farthest[b])
    count = np.int32(0)
    first = PADDING
    for b in range(len(farthest)):
        count += np.int32(farthest[b] == largest)
        first = min(first, np.int32(b) if farthest[b] == largest else PADDING)
    lowest = PADDING
    for b in range(first, len(farthest) if count > 1 else first + 1):
        if farthest[b] == largest:
            for s in range(b * _LEAF, (b + 1) * _LEAF):
                lowest = min(lowest, source[s] if distance[s] == largest else PADDING)
    return int(lowest)


def fps_order(coord: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a permutation of one cloud in which every prefix is a farthest-point subset, starting from index 0.

    The order is exactly that of the plain algorithm, with repeated points last.

    Args:
        coord: (n, 3) finite coordinates.

    Returns:
        (n,) indices.

    Raises:
        ValueError: The shape is wrong or a coordinate is not finite.
    """
    if coord.ndim != 2 or coord.shape[1] != 3 or len(coord) == 0:
        raise ValueError(f"expected a cloud of shape (n, 3) with n > 0, got {coord.shape}")
    if not np.isfinite(coord).all():
        raise ValueError("coordinates must be finite, got NaN or infinity")
    order = np.empty(len(coord), dtype=np.int64)
    fps_cloud(np.ascontiguousarray(coord, dtype=np.float32), order, 0, np.float32(0), True)
    return order
