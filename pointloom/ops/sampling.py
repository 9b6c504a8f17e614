"""Farthest point sampling: the reference in torch, a one-pass kernel for batches, a pruned kernel for full orders.

All of them are exact and agree index by index: the first index is ``start``, the next one is the first index with the
largest squared distance (float32, plain differences) to the points chosen so far.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pointloom.ops.backend import choose_backend

_BUCKET_SIZE = 64
_GRID_BITS = 10


def farthest_point_sampling(
    coord: Float[Tensor, "b n 3"],
    num: int,
    *,
    start: int = 0,
    skip_near_origin: float = 0.0,
    backend: str | None = None,
) -> Int[Tensor, "b num"]:
    """Choose ``num`` points per cloud, each as far as possible from those before it.

    Args:
        coord: Clouds; any unit.
        num: How many points to choose, 1 to n.
        start: Index of the first point.
        skip_near_origin: Points with a squared norm of at most this are never chosen (except as ``start``). The
            CUDA kernel that published checkpoints were trained with uses 1e-3; 0 switches the rule off.
        backend: ``torch`` or ``numba``; None lets ``choose_backend`` decide.

    Returns:
        Indices in the order of choice.

    Raises:
        ValueError: ``num`` or ``start`` is out of range, or a coordinate is not finite.
    """
    B, N, _ = coord.shape
    if not 1 <= num <= N:
        raise ValueError(f"cannot choose {num} points from clouds of {N}; give 1 to {N}")
    if not 0 <= start < N:
        raise ValueError(f"start index {start} is outside of clouds of {N} points")
    if choose_backend(coord.device, backend) == "numba":
        points = coord.detach().float().contiguous().numpy()
        chosen = np.empty((B, num), dtype=np.int64)
        if not _fps_batch(points, chosen, start, np.float32(skip_near_origin)):
            raise ValueError("coordinates must be finite, got NaN or infinity")
        return torch.from_numpy(chosen)
    return _fps_torch(coord.detach().float(), num, start, skip_near_origin)


def _fps_torch(coord: Float[Tensor, "b n 3"], num: int, start: int, skip_near_origin: float) -> Int[Tensor, "b num"]:
    B, N, _ = coord.shape
    if coord.device.type == "cpu" and not bool(torch.isfinite(coord).all()):
        raise ValueError("coordinates must be finite, got NaN or infinity")
    distance = torch.full((B, N), torch.inf, device=coord.device)
    if skip_near_origin > 0:
        distance.masked_fill_(coord.square().sum(-1) <= skip_near_origin, -1.0)
    chosen = torch.empty((B, num), dtype=torch.long, device=coord.device)
    current = torch.full((B, 1), start, dtype=torch.long, device=coord.device)
    x, y, z = coord.unbind(-1)
    for i in range(num):
        chosen[:, i : i + 1] = current
        dx = x - x.gather(1, current)
        dy = y - y.gather(1, current)
        dz = z - z.gather(1, current)
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        current = distance.argmax(1, keepdim=True)
    return chosen


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fps_batch(
    points: NDArray[np.float32], chosen: NDArray[np.int64], start: int, skip: np.float32
) -> bool:  # pragma: no cover - compiled
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
            current = np.argmax(distance)
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
    order: NDArray[np.int64] = _fps_pruned(points, _curve_order(points))
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fps_pruned(
    points: NDArray[np.float32], curve: NDArray[np.int64]
) -> NDArray[np.int64]:  # pragma: no cover - compiled
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
