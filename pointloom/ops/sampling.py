"""Farthest point sampling: the reference in torch, and kernels that skip what cannot change.

All of ours are exact and agree index by index: the first index is ``start``, the next one has the largest squared
distance (float32, plain differences) to the points chosen so far; of several, ``ties`` says which.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels import pointnet2
from pointloom.kernels.farthest import fps_clouds
from pointloom.ops.backend import choose_backend
from pointloom.ops.segments import even_starts, require_clouds, require_finite, starts_of
from pointloom.ops.threads import run_parts

Ties = Literal["lowest", "official"]

_PER_POINT = 100  # operations, roughly
_THREADS = 512  # of a block in the CUDA kernel of pointnet2_ops
_THREAD_BITS = 9


def farthest_point_sampling(
    coord: Float[Tensor, "b n 3"],
    num: int,
    *,
    start: int = 0,
    ties: Ties = "lowest",
    skip_near_origin: float = 0.0,
    backend: str | None = None,
) -> Int[Tensor, "b num"]:
    """Choose ``num`` points per cloud, each as far as possible from those before it.

    Args:
        coord: Clouds; any unit.
        num: How many points to choose, 1 to n.
        start: Index of the first point.
        ties: Which of several points that are equally far is chosen: that of the ``lowest`` index, or the one that the
            CUDA kernel of pointnet2_ops chooses (``official``).
        skip_near_origin: Points with a squared norm of at most this are never chosen (except as ``start``). The
            CUDA kernel that published checkpoints were trained with uses 1e-3; 0 switches the rule off.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Returns:
        Indices in the order of choice.

    Raises:
        ValueError: ``coord`` has another shape, ``num`` or ``start`` is out of range, ``ties`` has no such value or
            does not go with ``start``, or (on a CPU) a coordinate is not finite or above 1e18.
    """
    require_clouds(coord)
    _check_ties(ties, start)
    B, N, _ = coord.shape
    if not 1 <= num <= N:
        raise ValueError(f"cannot choose {num} points from clouds of {N}; give 1 to {N}")
    if not 0 <= start < N:
        raise ValueError(f"start index {start} is outside of clouds of {N} points")
    coord = coord.detach().float().contiguous()
    require_finite(coord)
    chosen_backend = choose_backend(coord.device, backend)
    if chosen_backend == "pointnet2" and start == 0 and skip_near_origin == pointnet2.NEAR_ORIGIN:
        return pointnet2.farthest_points(coord, num)
    if ties == "official":
        order = _official_order(even_starts(1, N, coord.device), N)
        sorted_coord = coord[:, order]
        return order[farthest_point_sampling(sorted_coord, num, skip_near_origin=skip_near_origin, backend=backend)]
    if chosen_backend not in _FPS:
        return _fps_torch(coord, num, start, skip_near_origin)
    chosen = torch.empty((B, num), dtype=torch.long, device=coord.device)
    starts, ends = even_starts(B, N, coord.device), even_starts(B, num, coord.device)
    _FPS[chosen_backend](coord.view(-1, 3), starts, chosen.view(-1), ends, start, skip_near_origin)
    return chosen


def farthest_point_sampling_ragged(
    coord: Float[Tensor, "p 3"],
    offset: Int[Tensor, " b"],
    num: Int[Tensor, " b"],
    *,
    start: int = 0,
    ties: Ties = "lowest",
    skip_near_origin: float = 0.0,
    backend: str | None = None,
) -> Int[Tensor, " q"]:
    """Choose points from clouds of different sizes that lie one after the other.

    Args:
        coord: All points; any unit.
        offset: Where each cloud ends.
        num: How many points to choose from each.
        start: Index of the first point within every cloud.
        ties: As for ``farthest_point_sampling``.
        skip_near_origin: As for ``farthest_point_sampling``.
        backend: As for ``farthest_point_sampling``.

    Returns:
        Rows of ``coord``, cloud after cloud.

    Raises:
        ValueError: The offsets do not fit, a cloud has too few points for ``num`` or ``start``, ``ties`` has no such
            value or does not go with ``start``, or (on a CPU) a coordinate is not finite or above 1e18.
    """
    _check_ties(ties, start)
    starts, wanted = starts_of(offset, len(coord), "coord"), num.detach().cpu().long()
    if len(wanted) != len(offset):
        raise ValueError(f"num must say how many of each of {len(offset)} clouds, got {len(wanted)} numbers")
    for cloud, (size, count) in enumerate(zip(starts.diff().tolist(), wanted.tolist(), strict=True)):
        if not 1 <= count <= size:
            raise ValueError(f"cannot choose {count} points from cloud {cloud} of {size}; give 1 to {size}")
        if not 0 <= start < size:
            raise ValueError(f"start index {start} is outside of cloud {cloud} of {size} points")
    coord = coord.detach().float().contiguous()
    require_finite(coord)
    if ties == "official":
        order = _official_order(starts, len(coord)).to(coord.device)
        chosen = farthest_point_sampling_ragged(
            coord[order], offset, num, skip_near_origin=skip_near_origin, backend=backend
        )
        return order[chosen]
    ends = torch.cat([wanted.new_zeros(1), wanted.cumsum(0)])
    chosen_backend = choose_backend(coord.device, backend)
    if chosen_backend in _FPS:
        chosen = torch.empty(int(ends[-1]), dtype=torch.long, device=coord.device)
        _FPS[chosen_backend](coord, starts, chosen, ends, start, skip_near_origin)
    else:
        clouds = zip(coord.split(starts.diff().tolist()), wanted.tolist(), strict=True)
        chosen = torch.cat([_fps_torch(cloud[None], n, start, skip_near_origin)[0] for cloud, n in clouds])
    return chosen + starts[:-1].repeat_interleave(wanted).to(chosen.device)


def _check_ties(ties: Ties, start: int) -> None:
    if ties not in {"lowest", "official"}:
        raise ValueError(f"ties go to the lowest or the official index, got {ties!r}")
    if ties == "official" and start != 0:
        raise ValueError(f"official ties begin at index 0, as the official kernel does, got start {start}")


def _official_order(starts: Int[Tensor, " s"], num_rows: int) -> Int[Tensor, " p"]:
    """Return all rows, cloud after cloud, in the order in which they win ties in the CUDA kernel of pointnet2_ops.

    A block of threads shares a cloud, thread t has points t, t + threads, ... and keeps the first of its farthest. Then
    the upper half of the threads is compared with the lower one, which wins ties, until one is left: of two threads
    that wins whose number has a 0 in the lowest bit in which they differ.
    """
    sizes = starts.diff()
    cloud = torch.repeat_interleave(sizes, output_size=num_rows)
    threads = 2 ** sizes.clamp(max=_THREADS).double().log2().floor().long()
    thread = (torch.arange(num_rows, device=starts.device) - starts[cloud]) % threads[cloud]
    for bit in range(_THREAD_BITS):
        cloud = 2 * cloud + (thread >> bit) % 2
    return cloud.argsort(stable=True)


def _fps_numba(  # noqa: PLR0917 - the kernel's order
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    chosen: Int[Tensor, " q"],
    chosen_starts: Int[Tensor, " s"],
    start: int,
    skip_near_origin: float,
) -> None:
    skip = np.float32(skip_near_origin)
    points, ends, found, found_ends = coord.numpy(), starts.numpy(), chosen.numpy(), chosen_starts.numpy()

    def choose(first: int, end: int) -> None:
        fps_clouds(points, ends[first : end + 1], found, found_ends[first : end + 1], start, skip)

    run_parts(choose, len(starts) - 1, cost=_PER_POINT * len(coord) // len(starts))


def _fps_triton(  # noqa: PLR0917 - the kernel's order
    coord: Float[Tensor, "p 3"],
    starts: Int[Tensor, " s"],
    chosen: Int[Tensor, " q"],
    chosen_starts: Int[Tensor, " s"],
    start: int,
    skip_near_origin: float,
) -> None:
    from pointloom.kernels.gpu import fps_gpu

    fps_gpu(coord, starts, chosen, chosen_starts, start=start, skip=skip_near_origin)


_FPS = {"numba": _fps_numba, "triton": _fps_triton}


def _fps_torch(coord: Float[Tensor, "b n 3"], num: int, start: int, skip_near_origin: float) -> Int[Tensor, "b num"]:
    B, N, _ = coord.shape
    x, y, z = coord.unbind(-1)
    distance = torch.full((B, N), torch.inf, device=coord.device)
    if skip_near_origin > 0:
        distance.masked_fill_(x * x + y * y + z * z <= skip_near_origin, -1.0)
    chosen = torch.empty((B, num), dtype=torch.long, device=coord.device)
    current = torch.full((B, 1), start, dtype=torch.long, device=coord.device)
    for i in range(num):
        chosen[:, i : i + 1] = current
        dx = x - x.gather(1, current)
        dy = y - y.gather(1, current)
        dz = z - z.gather(1, current)
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        current = distance.argmax(1, keepdim=True)
    return chosen
