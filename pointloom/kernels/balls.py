"""Ball query: the first points by index inside a ball."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_BLOCK = 64


@njit(cache=True, nogil=True)
def ball_clouds(
    query: NDArray[np.float32],
    query_starts: NDArray[np.int64],
    points: NDArray[np.float32],
    starts: NDArray[np.int64],
    radius: np.float32,
    index: NDArray[np.int64],
) -> None:  # pragma: no cover - compiled
    """Fill ``index`` (q, num) with points of the own cloud nearer than ``radius``; repeat the first to fill the row."""
    row = np.empty(_BLOCK, dtype=np.float32)
    for b in range(len(starts) - 1):
        if query_starts[b] == query_starts[b + 1]:
            continue
        N = starts[b + 1] - starts[b]
        planes = np.full((3, (N + _BLOCK - 1) // _BLOCK * _BLOCK), np.inf, dtype=np.float32)
        for i in range(N):
            for a in range(3):
                planes[a, i] = points[starts[b] + i, a]
        for m in range(query_starts[b], query_starts[b + 1]):
            _first_hits(planes, query[m, 0], query[m, 1], query[m, 2], radius * radius, index[m], row)


@njit(cache=True, nogil=True)
def _first_hits(
    planes: NDArray[np.float32],
    x: np.float32,
    y: np.float32,
    z: np.float32,
    limit: np.float32,
    found: NDArray[np.int64],
    row: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    count = 0
    for first in range(0, planes.shape[1], _BLOCK):
        end = first + _BLOCK  # vector instructions need rows of their own, indexed from 0
        xs, ys, zs = planes[0, first:end], planes[1, first:end], planes[2, first:end]
        hits = np.int32(0)
        for j in range(len(row)):  # a constant length would be unrolled instead of made vector instructions
            dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
            row[j] = dx * dx + dy * dy + dz * dz
            hits += np.int32(row[j] < limit)
        if hits > 0:
            for j in range(len(row)):
                if row[j] < limit:
                    found[count] = first + j
                    count += 1
                    if count == len(found):
                        return
    found[count:] = found[0] if count > 0 else 0
