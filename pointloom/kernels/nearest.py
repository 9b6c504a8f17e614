"""Nearest neighbours: a plain search through few points, a k-d tree for more. Ties go to the lower index."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pointloom.kernels.tree import PADDING, Tree, build_tree

_LEAF = 32
_FAN = 64  # nodes that are bounded at once
_LEVELS = 5  # 2^31 points make a tree of 26 levels, six of which are descended at once


@njit(cache=True, nogil=True)
def knn_clouds(
    query: NDArray[np.float32],
    query_starts: NDArray[np.int64],
    points: NDArray[np.float32],
    starts: NDArray[np.int64],
    index: NDArray[np.int64],
) -> None:  # pragma: no cover - compiled
    """Fill ``index`` (q, k) with the nearest ``points`` (p, 3) of the own cloud."""
    for b in range(len(starts) - 1):
        if query_starts[b] == query_starts[b + 1]:
            continue
        own = query[query_starts[b] : query_starts[b + 1]]
        cloud = points[starts[b] : starts[b + 1]]
        found = index[query_starts[b] : query_starts[b + 1]]
        if len(cloud) <= 2 * _LEAF:
            _knn_plain(own, cloud, found)
        else:
            _knn_tree(own, cloud, found)


@njit(cache=True, nogil=True)
def _knn_plain(
    query: NDArray[np.float32], points: NDArray[np.float32], index: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    N, k = len(points), index.shape[1]
    planes = np.empty((3, N), dtype=np.float32)
    for i in range(N):
        planes[0, i], planes[1, i], planes[2, i] = points[i, 0], points[i, 1], points[i, 2]
    row = np.empty(N, dtype=np.float32)
    nearest = np.empty(k, dtype=np.float32)
    for m in range(len(query)):
        x, y, z = query[m, 0], query[m, 1], query[m, 2]
        for i in range(N):
            dx, dy, dz = planes[0, i] - x, planes[1, i] - y, planes[2, i] - z
            row[i] = dx * dx + dy * dy + dz * dz
        nearest[:] = np.inf
        for i in range(N):
            if row[i] < nearest[k - 1]:
                place = k - 1
                while place > 0 and nearest[place - 1] > row[i]:
                    nearest[place] = nearest[place - 1]
                    index[m, place] = index[m, place - 1]
                    place -= 1
                nearest[place] = row[i]
                index[m, place] = i


@njit(cache=True, nogil=True)
def _knn_tree(
    query: NDArray[np.float32], points: NDArray[np.float32], index: NDArray[np.int64]
) -> None:  # pragma: no cover - compiled
    k = index.shape[1]
    tree = build_tree(points, _LEAF)
    nearest = np.empty(k, dtype=np.float32)
    found = np.empty(k, dtype=np.int32)
    bounds = np.empty((_LEVELS, min(_FAN, tree[2].shape[1] // 2)), dtype=np.float32)
    firsts = np.empty(_LEVELS, dtype=np.int64)
    row = np.empty(_LEAF, dtype=np.float32)
    for m in range(len(query)):
        nearest[:] = np.inf
        found[:] = -1
        _search(tree, query[m, 0], query[m, 1], query[m, 2], nearest, found, bounds, firsts, row)
        for j in range(k):
            index[m, j] = found[j]


@njit(cache=True, nogil=True)
def _search(
    tree: Tree,
    x: np.float32,
    y: np.float32,
    z: np.float32,
    nearest: NDArray[np.float32],
    found: NDArray[np.int32],
    bounds: NDArray[np.float32],
    firsts: NDArray[np.int64],
    row: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """Collect the nearest points, sorted by distance and index.

    The binary tree is descended several levels at a time: all nodes of that level below a node are bounded at once, and
    visited from the nearest on as long as their bound allows a nearer point.
    """
    slots, source, box = tree
    leaves = box.shape[1] // 2
    last = len(nearest) - 1
    level = 0
    firsts[0] = _bound_below(box, 1, x, y, z, bounds[0])
    while level >= 0:
        best = _least(bounds[level])
        bound = bounds[level, best]
        if bound > nearest[last] or bound == np.inf:
            level -= 1
            continue
        bounds[level, best] = np.inf
        node = firsts[level] + best
        if node >= leaves:
            _scan_leaf(slots, source, (node - leaves) * _LEAF, x, y, z, nearest, found, row)
        else:
            level += 1
            firsts[level] = _bound_below(box, node, x, y, z, bounds[level])


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _bound_below(
    box: NDArray[np.float32], node: int, x: np.float32, y: np.float32, z: np.float32, bound: NDArray[np.float32]
) -> int:  # pragma: no cover - compiled
    """Fill ``bound`` with squared distances to the boxes of nodes a few levels below; return the first of them."""
    first, width = node, 1
    while first < box.shape[1] // 2 and width < len(bound):
        first, width = 2 * first, 2 * width
    end = first + width  # vector instructions need rows of their own, indexed from 0
    x0, y0, z0 = box[0, first:end], box[1, first:end], box[2, first:end]
    x1, y1, z1 = box[3, first:end], box[4, first:end], box[5, first:end]
    bound[width:] = np.inf
    for c in range(width):
        dx = max(max(x0[c] - x, x - x1[c]), np.float32(0))
        dy = max(max(y0[c] - y, y - y1[c]), np.float32(0))
        dz = max(max(z0[c] - z, z - z1[c]), np.float32(0))
        bound[c] = dx * dx + dy * dy + dz * dz
    return first


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _least(bound: NDArray[np.float32]) -> int:  # pragma: no cover - compiled
    """Return the place of the least bound, in two runs that become vector instructions."""
    least = np.float32(np.inf)
    for c in range(len(bound)):
        least = min(least, bound[c])
    place = np.int32(len(bound) - 1)
    for c in range(len(bound)):
        place = min(place, np.int32(c) if bound[c] == least else np.int32(len(bound) - 1))
    return int(place)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _scan_leaf(
    slots: NDArray[np.float32],
    source: NDArray[np.int32],
    first: int,
    x: np.float32,
    y: np.float32,
    z: np.float32,
    nearest: NDArray[np.float32],
    found: NDArray[np.int32],
    row: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    end = first + _LEAF
    xs, ys, zs, own = slots[0, first:end], slots[1, first:end], slots[2, first:end], source[first:end]
    last = len(nearest) - 1
    least = np.float32(np.inf)
    for j in range(len(row)):  # a constant length would be unrolled instead of made vector instructions
        dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
        row[j] = dx * dx + dy * dy + dz * dz
        least = min(least, row[j])
    if least > nearest[last]:
        return
    if last == 0:
        lowest = PADDING
        for j in range(len(row)):
            lowest = min(lowest, own[j] if row[j] == least else PADDING)
        if least < nearest[0] or lowest < found[0]:
            nearest[0], found[0] = least, lowest
        return
    for j in range(len(row)):
        d, i = row[j], own[j]
        if d < nearest[last] or (d == nearest[last] and i < found[last]):
            place = last
            while place > 0 and (d < nearest[place - 1] or (d == nearest[place - 1] and i < found[place - 1])):
                nearest[place], found[place] = nearest[place - 1], found[place - 1]
                place -= 1
            nearest[place], found[place] = d, i
