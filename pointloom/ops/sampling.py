"""Farthest point sampling: the reference in torch, a one-pass kernel for batches, a pruned kernel for full orders.

All of them are exact and agree index by index: the first index is ``start``, the next one is the first index with the
largest squared distance (float32, plain differences) to the points chosen so far.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom import kernels
from pointloom.ops.backend import choose_backend


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
        if not kernels.fps_batch(points, chosen, start, np.float32(skip_near_origin)):
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
