"""Farthest point sampling, exact, with parts of a k-d tree left out that the newest point cannot change.

The tree is looked at in two steps, blocks of leaves and the leaves of near blocks, each in vector instructions: with
several thousand leaves a run over all of them per sample would make the whole quadratic.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pointloom.kernels.tree import LARGEST, PADDING, build_tree

_LEAF = 64
_BLOCK = 64  # leaves


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
    width = min(leaves, _BLOCK)
    blocks = leaves // width
    farthest_block = np.full(blocks, np.inf, dtype=np.float32)
    near, near_block = np.empty(width, dtype=np.int32), np.ones(blocks, dtype=np.int32)
    current = start
    for i in range(len(chosen)):
        chosen[i] = current
        x, y, z = points[current, 0], points[current, 1], points[current, 2]
        if once:
            home = slot_of[current] // _LEAF
            distance[slot_of[current]] = -1
            farthest[home] = _update_leaf(slots, distance, home * _LEAF, x, y, z)
            first = home // width * width
            farthest_block[home // width] = _largest(farthest[first : first + width])
        if blocks > 1:
            _find_near(box, blocks, farthest_block, x, y, z, near_block)
        for j in range(blocks):
            if near_block[j]:
                own = farthest[j * width : (j + 1) * width]
                _update_block(slots, distance, box, leaves + j * width, own, j * width, x, y, z, near)
                farthest_block[j] = _largest(own)
        current = _first_farthest(farthest, farthest_block, distance, source)


@njit(cache=True, nogil=True)
def _update_block(
    slots: NDArray[np.float32],
    distance: NDArray[np.float32],
    box: NDArray[np.float32],
    node: int,
    farthest: NDArray[np.float32],
    leaf: int,
    x: np.float32,
    y: np.float32,
    z: np.float32,
    near: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Update the near leaves of a block that begins at ``node`` of the tree and at ``leaf``."""
    _find_near(box, node, farthest, x, y, z, near)
    for b in range(len(farthest)):
        if near[b]:
            farthest[b] = _update_leaf(slots, distance, (leaf + b) * _LEAF, x, y, z)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _largest(values: NDArray[np.float32]) -> np.float32:  # pragma: no cover - compiled
    largest = np.float32(-1)
    for b in range(len(values)):
        largest = max(largest, values[b])
    return largest


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
    node: int,
    farthest: NDArray[np.float32],
    x: np.float32,
    y: np.float32,
    z: np.float32,
    near: NDArray[np.int32],
) -> None:  # pragma: no cover - compiled
    """Mark the nodes from ``node`` on in which the distance of some point can fall, in vector instructions."""
    x0, y0, z0 = box[0, node:], box[1, node:], box[2, node:]  # these need rows of their own, indexed from 0
    x1, y1, z1 = box[3, node:], box[4, node:], box[5, node:]
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
    farthest: NDArray[np.float32],
    farthest_block: NDArray[np.float32],
    distance: NDArray[np.float32],
    source: NDArray[np.int32],
) -> int:  # pragma: no cover - compiled
    """Return the lowest index among the points with the largest distance."""
    largest = _largest(farthest_block)
    width = len(farthest) // len(farthest_block)
    lowest = PADDING
    for j in range(len(farthest_block)):
        if farthest_block[j] == largest:
            for b in range(j * width, (j + 1) * width):
                if farthest[b] == largest:
                    for s in range(b * _LEAF, (b + 1) * _LEAF):
                        lowest = min(lowest, source[s] if distance[s] == largest else PADDING)
    return int(lowest)


def fps_order(coord: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a permutation of one cloud in which every prefix is a farthest-point subset, starting from index 0.

    The order is exactly that of the plain algorithm, with repeated points last.

    Args:
        coord: (n, 3) coordinates, finite and at most ``tree.LARGEST``.

    Returns:
        (n,) indices.

    Raises:
        ValueError: The shape is wrong, or a coordinate is not finite or too large.
    """
    if coord.ndim != 2 or coord.shape[1] != 3 or len(coord) == 0:
        raise ValueError(f"expected a cloud of shape (n, 3) with n > 0, got {coord.shape}")
    if not (np.abs(coord) <= LARGEST).all():
        raise ValueError(f"coordinates must be finite and at most {LARGEST:g}, got NaN, infinity or more")
    order = np.empty(len(coord), dtype=np.int64)
    fps_cloud(np.ascontiguousarray(coord, dtype=np.float32), order, 0, np.float32(0), True)
    return order
