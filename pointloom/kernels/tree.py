"""A balanced k-d tree with small leaves, the ground of all pruned searches.

Points are re-ordered so that every leaf is a run of slots of the same length; a leaf with fewer points ends with slots
at infinity. The bounds that leave out a node are computed from the same differences, squares and sums as distances
are, and rounding keeps the order of numbers, so that leaving nodes out changes no result, not even in the last bit.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

LARGEST = 1e18
"""Largest coordinate that callers may pass: squared distances of larger ones overflow single precision."""

PADDING = np.int32(2**31 - 1)
"""Index in the slots without a point, above every real one."""

Tree = tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]
"""``slots`` (3, leaves x leaf) coordinates; ``source``: index of each slot's point; ``box`` (6, 2 x leaves): lower and
upper corner of every node. Node 1 is the root, 2i and 2i + 1 are the children of i, the second half are the leaves."""

_Columns = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]
"""The coordinate that is halved, x, y, z and index of the same points."""


@njit(cache=True, nogil=True)
def build_tree(points: NDArray[np.float32], leaf: int) -> Tree:  # pragma: no cover - compiled
    """Return the tree over ``points`` (n, 3), n > 0, with at most ``leaf`` points per leaf."""
    N = len(points)
    leaves = 1
    while leaves * leaf < N:
        leaves *= 2
    coord = np.empty((3, N), dtype=np.float32)
    index = np.empty(N, dtype=np.int32)
    for i in range(N):
        coord[0, i], coord[1, i], coord[2, i], index[i] = points[i, 0], points[i, 1], points[i, 2], i
    box = np.empty((6, 2 * leaves), dtype=np.float32)
    first = np.zeros(2 * leaves, dtype=np.int64)
    end = np.full(2 * leaves, N, dtype=np.int64)
    for node in range(1, 2 * leaves):
        low, high = first[node], end[node]
        axis = 0
        for a in range(3):
            box[a, node], box[3 + a, node] = _extent(coord[a, low:high])
            if box[3 + a, node] - box[a, node] > box[3 + axis, node] - box[axis, node]:
                axis = a
        if node < leaves:
            middle = (low + high) // 2
            _halve(coord[0, low:high], coord[1, low:high], coord[2, low:high], index[low:high], axis, middle - low)
            first[2 * node], end[2 * node] = low, middle
            first[2 * node + 1], end[2 * node + 1] = middle, high
    slots = np.full((3, leaves * leaf), np.inf, dtype=np.float32)
    source = np.full(leaves * leaf, PADDING, dtype=np.int32)
    for b in range(leaves):
        low, high = first[leaves + b], end[leaves + b]
        source[b * leaf : b * leaf + high - low] = index[low:high]
        slots[:, b * leaf : b * leaf + high - low] = coord[:, low:high]
    return slots, source, box


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _extent(x: NDArray[np.float32]) -> tuple[np.float32, np.float32]:  # pragma: no cover - compiled
    smallest, largest = np.float32(np.inf), np.float32(-np.inf)
    for i in range(len(x)):
        smallest, largest = min(smallest, x[i]), max(largest, x[i])
    return smallest, largest


@njit(cache=True, nogil=True)
def _halve(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    index: NDArray[np.int32],
    axis: int,
    middle: int,
) -> None:  # pragma: no cover - compiled
    """Re-order points so that along ``axis`` nothing before ``middle`` is above anything from there on."""
    key = x if axis == 0 else y if axis == 1 else z
    low, high = 0, len(index)
    while high - low > 1:
        a, b, c = key[low], key[(low + high) // 2], key[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        own = (key[low:high], x[low:high], y[low:high], z[low:high], index[low:high])
        split = low + _move_to_front(own, pivot, False)
        if middle < split:
            high = split
            continue
        if split == low:  # the pivot is the smallest: its equals come first
            split = low + _move_to_front(own, pivot, True)
            if middle < split:
                return
        low = split


@njit(cache=True, nogil=True)
def _move_to_front(points: _Columns, pivot: np.float32, equal: bool) -> int:  # pragma: no cover - compiled
    """Move the points below ``pivot`` (or equal to it) to the front; return how many they are."""
    key, x, y, z, index = points
    split = 0
    for i in range(len(index)):  # every point is swapped, without a branch that the processor could mispredict
        value = key[i]
        moves = value == pivot if equal else value < pivot
        x0, y0, z0, i0 = x[i], y[i], z[i], index[i]
        x[i], y[i], z[i], index[i] = x[split], y[split], z[split], index[split]
        x[split], y[split], z[split], index[split] = x0, y0, z0, i0
        split += int(moves)
    return split
