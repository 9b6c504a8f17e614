"""Merging along edges, the cheapest first: segments of a graph."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int32], node: int) -> int:  # pragma: no cover - compiled
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True)
def merge_edges(
    start: NDArray[Any], end: NDArray[Any], weight: NDArray[np.float32], num_nodes: int, scale: float, smallest: int
) -> NDArray[np.int32]:  # pragma: no cover - compiled
    """Return the segment of every node; edges must come in rising order of ``weight``.

    Two segments are joined by an edge that is not heavier than the heaviest edge inside each, plus ``scale`` over the
    number of its nodes; then those with fewer than ``smallest`` nodes are joined to a neighbour.
    """
    parent = np.arange(num_nodes).astype(np.int32)
    size = np.ones(num_nodes, dtype=np.int32)
    limit = np.full(num_nodes, scale)
    for edge in range(len(weight)):
        a, b = _root(parent, start[edge]), _root(parent, end[edge])
        if a != b and weight[edge] <= min(limit[a], limit[b]):
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight[edge] + scale / size[a]
    for edge in range(len(weight)):
        a, b = _root(parent, start[edge]), _root(parent, end[edge])
        if a != b and (size[a] < smallest or size[b] < smallest):
            parent[b] = a
            size[a] += size[b]
    for node in range(num_nodes):
        parent[node] = _root(parent, node)
    return parent
