"""Compiled CPU kernels of the point operations; ``ops`` wraps, documents and checks them.

They live outside of ``ops`` because the shape-checking import hook of the tests cannot wrap compiled functions, and
so that the worker processes of ``prepare`` need not import torch.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_BUCKET_SIZE = 64
_GRID_BITS = 10


@njit(cache=True, nogil=True)
def fps_batch(
    points: NDArray[np.float32], chosen: NDArray[np.int64], start: int, skip: np.float32
) -> bool:  # pragma: no cover - compiled
    """Fill ``chosen`` (b, num) with farthest point samples of ``points`` (b, n, 3); False if one is not finite."""
    B, N, _ = points.shape
    num = chosen.shape[1]
    x = np.empty(N, dtype=np.float32)
    y = np.empty(N, dtype=np.float32)
    z = np.empty(N, dtype=np.float32)
    distance = np.empty(N, dtype=np.float32)
    for b in range(B):
        for j in range(N):
            x[j], y[j], z[j] = points[b, j, 0], points[b, j, 1], points[b, j, 2]
            norm = x[j] * x[j] + y[j] * y[j] + z[j] * z[j]
            if not np.isfinite(norm):
                return False
            distance[j] = np.float32(-1.0) if skip > 0 and norm <= skip else np.float32(np.inf)
        current = start
        for i in range(num):
            chosen[b, i] = current
            cx, cy, cz = x[current], y[current], z[current]
            for j in range(N):
                dx, dy, dz = x[j] - cx, y[j] - cy, z[j] - cz
                distance[j] = min(distance[j], dx * dx + dy * dy + dz * dz)
            current = int(np.argmax(distance))
    return True


@njit(cache=True, nogil=True)
def fps_pruned(
    points: NDArray[np.float32], curve: NDArray[np.int64]
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """Return the full farthest-point order of ``points`` (n, 3), given an order in which neighbours are close."""
    N = len(points)
    buckets = (N + _BUCKET_SIZE - 1) // _BUCKET_SIZE
    p = np.empty((3, N), dtype=np.float32)
    low = np.full((3, buckets), np.inf, dtype=np.float32)
    high = np.full((3, buckets), -np.inf, dtype=np.float32)
    distance = np.full(N, np.inf, dtype=np.float32)
    farthest = np.full(buckets, np.inf, dtype=np.float32)
    farthest_at = np.empty(buckets, dtype=np.int64)
    current = 0
    for s in range(N):
        b = s // _BUCKET_SIZE
        for a in range(3):
            p[a, s] = points[curve[s], a]
            low[a, b] = min(low[a, b], p[a, s])
            high[a, b] = max(high[a, b], p[a, s])
        if curve[s] == 0:
            current = s
    order = np.empty(N, dtype=np.int64)
    for i in range(N):
        order[i] = curve[current]
        distance[current] = np.float32(-1.0)
        cx, cy, cz = p[0, current], p[1, current], p[2, current]
        home = current // _BUCKET_SIZE
        best = np.float32(-2.0)
        best_at = 0
        for b in range(buckets):
            dx = max(low[0, b] - cx, cx - high[0, b], np.float32(0))
            dy = max(low[1, b] - cy, cy - high[1, b], np.float32(0))
            dz = max(low[2, b] - cz, cz - high[2, b], np.float32(0))
            if b == home or dx * dx + dy * dy + dz * dz < farthest[b]:
                top = np.float32(-2.0)
                top_at = 0
                for s in range(b * _BUCKET_SIZE, min((b + 1) * _BUCKET_SIZE, N)):
                    ex, ey, ez = p[0, s] - cx, p[1, s] - cy, p[2, s] - cz
                    distance[s] = min(distance[s], ex * ex + ey * ey + ez * ez)
                    if distance[s] > top or (distance[s] == top and curve[s] < curve[top_at]):
                        top = distance[s]
                        top_at = s
                farthest[b] = top
                farthest_at[b] = top_at
            if farthest[b] > best or (farthest[b] == best and curve[farthest_at[b]] < curve[best_at]):
                best = farthest[b]
                best_at = farthest_at[b]
        current = best_at
    return order


@njit(cache=True, nogil=True)
def knn_batch(
    query: NDArray[np.float32], coord: NDArray[np.float32], index: NDArray[np.int64]
) -> bool:  # pragma: no cover - compiled
    """Fill ``index`` (b, m, k) with the nearest points of ``coord``; False if one has fewer finite distances."""
    B, M, k = index.shape
    N = coord.shape[1]
    row = np.empty(N, dtype=np.float32)
    nearest = np.empty(k, dtype=np.float32)
    planes = np.empty((3, N), dtype=np.float32)
    for b in range(B):
        for j in range(N):
            for a in range(3):
                planes[a, j] = coord[b, j, a]
        for m in range(M):
            qx, qy, qz = query[b, m, 0], query[b, m, 1], query[b, m, 2]
            for j in range(N):
                dx, dy, dz = planes[0, j] - qx, planes[1, j] - qy, planes[2, j] - qz
                row[j] = dx * dx + dy * dy + dz * dz
            nearest[:] = np.inf
            for j in range(N):
                d = row[j]
                if d < nearest[k - 1]:
                    place = k - 1
                    while place > 0 and nearest[place - 1] > d:
                        nearest[place] = nearest[place - 1]
                        index[b, m, place] = index[b, m, place - 1]
                        place -= 1
                    nearest[place] = d
                    index[b, m, place] = j
            if not np.isfinite(nearest[k - 1]):
                return False
    return True


def fps_order(coord: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a permutation of one cloud in which every prefix is a farthest-point subset, starting from index 0.

    Buckets of nearby points whose bounding box is too far from the newest point to change are skipped, so that the
    cost grows far slower than n squared; the order is exactly that of the plain algorithm, with repeated points last.

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
    points = np.ascontiguousarray(coord, dtype=np.float32)
    order: NDArray[np.int64] = fps_pruned(points, _curve_order(points))
    return order


def _curve_order(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sort points along a space-filling (Morton) curve, so that runs of them lie close together."""
    low = points.min(0)
    extent = max(float((points.max(0) - low).max()), 1e-30)
    cells = ((points - low) * ((2**_GRID_BITS - 1) / extent)).astype(np.int64)
    code = np.zeros(len(points), dtype=np.int64)
    for bit in range(_GRID_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.argsort(code, kind="stable").astype(np.int64)
