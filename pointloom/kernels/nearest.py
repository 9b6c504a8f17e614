"""Nearest neighbours: a plain search through few points, a k-d tree for more. Ties go to the lower index."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pointloom.kernels.tree import Tree, box_distance, build_tree

_LEAF = 32
_DEPTH = 64  # a balanced tree of 2^31 points has 26 levels


@njit(cache=True, nogil=True)
def knn_clouds(
    query: NDArray[np.float32],
    query_starts: NDArray[np.int64],
    points: NDArray[np.float32],
    starts: NDArray[np.int64],
    index: NDArray[np.int64],
) -> bool:  # pragma: no cover - compiled
    """Fill ``index`` (q, k) with the nearest ``points`` (p, 3) of the own cloud; False if a distance overflows."""
    fits = True
    for b in range(len(starts) - 1):
        own = query[query_starts[b] : query_starts[b + 1]]
        cloud = points[starts[b] : starts[b + 1]]
        found = index[query_starts[b] : query_starts[b + 1]]
        fits &= _knn_plain(own, cloud, found) if len(cloud) <= 2 * _LEAF else _knn_tree(own, cloud, found)
    return fits


@njit(cache=True, nogil=True)
def _knn_plain(
    query: NDArray[np.float32], points: NDArray[np.float32], index: NDArray[np.int64]
) -> bool:  # pragma: no cover - compiled
    N, k = len(points), index.shape[1]
    planes = np.empty((3, N), dtype=np.float32)
    for i in range(N):
        planes[0, i], planes[1, i], planes[2, i] = points[i, 0], points[i, 1], points[i, 2]
    row = np.empty(N, dtype=np.float32)
    nearest = np.empty(k, dtype=np.float32)
    fits = True
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
        fits &= nearest[k - 1] < np.inf
    return fits


@njit(cache=True, nogil=True)
def _knn_tree(
    query: NDArray[np.float32], points: NDArray[np.float32], index: NDArray[np.int64]
) -> bool:  # pragma: no cover - compiled
    k = index.shape[1]
    tree = build_tree(points, _LEAF)
    nearest = np.empty(k, dtype=np.float32)
    found = np.empty(k, dtype=np.int32)
    node_stack = np.empty(_DEPTH, dtype=np.int64)
    bound_stack = np.empty(_DEPTH, dtype=np.float32)
    row = np.empty(_LEAF, dtype=np.float32)
    fits = True
    order = _by_leaf(tree[2], query)
    for m in order:
        nearest[:] = np.inf
        found[:] = -1
        _search(tree, query[m, 0], query[m, 1], query[m, 2], nearest, found, node_stack, bound_stack, row)
        index[m] = found
        fits &= nearest[k - 1] < np.inf
    return fits


@njit(cache=True, nogil=True)
def _by_leaf(box: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.int32]:  # pragma: no cover - compiled
    """Return an order of the queries in which those near the same leaf follow each other: they share the cache."""
    leaves = box.shape[1] // 2
    home = np.empty(len(query), dtype=np.int32)
    place = np.zeros(leaves + 1, dtype=np.int64)
    for m in range(len(query)):
        node = 1
        x, y, z = query[m, 0], query[m, 1], query[m, 2]
        while node < leaves:
            right = box_distance(box, 2 * node + 1, x, y, z) < box_distance(box, 2 * node, x, y, z)
            node = 2 * node + np.int64(right)
        home[m] = node - leaves
        place[home[m] + 1] += 1
    for b in range(leaves):
        place[b + 1] += place[b]
    order = np.empty(len(query), dtype=np.int32)
    for m in range(len(query)):
        order[place[home[m]]] = m
        place[home[m]] += 1
    return order


@njit(cache=True, nogil=True)
def _search(
    tree: Tree,
    x: np.float32,
    y: np.float32,
    z: np.float32,
    nearest: NDArray[np.float32],
    found: NDArray[np.int32],
    node_stack: NDArray[np.int64],
    bound_stack: NDArray[np.float32],
    row: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """Collect the nearest points, sorted by distance and index: nearer child first, the other one if still needed."""
    slots, source, box = tree
    leaves = box.shape[1] // 2
    farthest = len(nearest) - 1
    depth = 0
    node = 1
    while True:
        while node < leaves:
            left, right = box_distance(box, 2 * node, x, y, z), box_distance(box, 2 * node + 1, x, y, z)
            bound = max(left, right)
            node = 2 * node + np.int64(right < left)
            if bound <= nearest[farthest]:
                node_stack[depth], bound_stack[depth] = node ^ 1, bound
                depth += 1
        _scan_leaf(slots, source, (node - leaves) * _LEAF, x, y, z, nearest, found, row)
        while depth > 0 and bound_stack[depth - 1] > nearest[farthest]:
            depth -= 1
        if depth == 0:
            return
        depth -= 1
        node = node_stack[depth]


@njit(cache=True, nogil=True)
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
    last = len(nearest) - 1
    for j in range(_LEAF):
        dx, dy, dz = slots[0, first + j] - x, slots[1, first + j] - y, slots[2, first + j] - z
        row[j] = dx * dx + dy * dy + dz * dz
    for j in range(_LEAF):
        d, i = row[j], source[first + j]
        if d < nearest[last] or (d == nearest[last] and i < found[last]):
            place = last
            while place > 0 and (d < nearest[place - 1] or (d == nearest[place - 1] and i < found[place - 1])):
                nearest[place], found[place] = nearest[place - 1], found[place - 1]
                place -= 1
            nearest[place], found[place] = d, i
