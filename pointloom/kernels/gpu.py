"""GPU kernels of the point operations in Triton: no compiler at install time, a C compiler when they first run.

One program per cloud (farthest points) or per query (neighbours, balls); results are index by index those of the CPU
kernels, provided that multiplications and additions are not fused (``enable_fp_fusion=False``).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _squared_distance(points, at, inside, x, y, z):
    dx = tl.load(points + at * 3, mask=inside, other=0.0) - x
    dy = tl.load(points + at * 3 + 1, mask=inside, other=0.0) - y
    dz = tl.load(points + at * 3 + 2, mask=inside, other=0.0) - z
    return dx * dx + dy * dy + dz * dz


@triton.jit
def _fps(points, starts, chosen, chosen_starts, distance, start, skip, BLOCK: tl.constexpr):
    cloud = tl.program_id(0)
    first = tl.load(starts + cloud)
    size = (tl.load(starts + cloud + 1) - first).to(tl.int32)
    out = tl.load(chosen_starts + cloud)
    num = (tl.load(chosen_starts + cloud + 1) - out).to(tl.int32)
    lane = tl.arange(0, BLOCK)
    for block in range(0, size, BLOCK):
        inside = block + lane < size
        norm = _squared_distance(points, first + block + lane, inside, 0.0, 0.0, 0.0)
        never = (skip > 0) & (norm <= skip)
        tl.store(distance + first + block + lane, tl.where(never, -1.0, float("inf")), mask=inside)
    current = tl.full((), 0, tl.int32) + start
    for i in range(num):
        tl.store(chosen + out + i, current.to(tl.int64))
        x = tl.load(points + (first + current) * 3)
        y = tl.load(points + (first + current) * 3 + 1)
        z = tl.load(points + (first + current) * 3 + 2)
        farthest = tl.full((), -2.0, tl.float32)
        for block in range(0, size, BLOCK):
            at = block + lane
            inside = at < size
            old = tl.load(distance + first + at, mask=inside, other=-2.0)
            new = tl.minimum(old, _squared_distance(points, first + at, inside, x, y, z))
            tl.store(distance + first + at, new, mask=inside)
            new = tl.where(inside, new, -2.0)
            largest = tl.max(new, axis=0)
            place = tl.min(tl.where(new == largest, at, 2147483647), axis=0)
            current = tl.where(largest > farthest, place, current)
            farthest = tl.maximum(farthest, largest)


@triton.jit
def _knn(query, owner, points, starts, index, k, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    q = tl.program_id(0).to(tl.int64)
    cloud = tl.load(owner + q)
    first = tl.load(starts + cloud)
    size = (tl.load(starts + cloud + 1) - first).to(tl.int32)
    x, y, z = tl.load(query + q * 3), tl.load(query + q * 3 + 1), tl.load(query + q * 3 + 2)
    nothing = tl.full((), 9223372036854775807, tl.int64)
    lane = tl.arange(0, BLOCK)
    slot = tl.arange(0, SLOTS)
    best = tl.where(slot < k, nothing - slot, -1)  # keys of distance and index; different ones to begin with
    for block in range(0, size, BLOCK):
        at = block + lane
        inside = at < size
        squared = _squared_distance(points, first + at, inside, x, y, z)
        key = (squared.to(tl.int32, bitcast=True).to(tl.int64) << 32) | at.to(tl.int64)
        key = tl.where(inside, key, nothing)
        least = tl.min(key, axis=0)
        worst = tl.max(best, axis=0)
        while least < worst:
            best = tl.where(best == worst, least, best)
            key = tl.where(key == least, nothing, key)
            least = tl.min(key, axis=0)
            worst = tl.max(best, axis=0)
    best = tl.where(slot < k, best, nothing)
    for j in range(k):
        least = tl.min(best, axis=0)
        tl.store(index + q * k + j, least & 4294967295)
        best = tl.where(best == least, nothing, best)


@triton.jit
def _ball(query, owner, points, starts, index, limit, num, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    q = tl.program_id(0).to(tl.int64)
    cloud = tl.load(owner + q)
    first = tl.load(starts + cloud)
    size = (tl.load(starts + cloud + 1) - first).to(tl.int32)
    x, y, z = tl.load(query + q * 3), tl.load(query + q * 3 + 1), tl.load(query + q * 3 + 2)
    lane = tl.arange(0, BLOCK)
    count = tl.full((), 0, tl.int32)
    lowest = tl.full((), 2147483647, tl.int32)
    for block in range(0, size, BLOCK):
        at = block + lane
        inside = at < size
        hit = inside & (_squared_distance(points, first + at, inside, x, y, z) < limit)
        place = count + tl.cumsum(hit.to(tl.int32), axis=0) - 1
        tl.store(index + q * num + place, at.to(tl.int64), mask=hit & (place < num))
        lowest = tl.minimum(lowest, tl.min(tl.where(hit, at, 2147483647), axis=0))
        count += tl.sum(hit.to(tl.int32), axis=0)
    slot = tl.arange(0, SLOTS)
    fill = tl.where(count > 0, lowest, 0).to(tl.int64)
    tl.store(index + q * num + slot, tl.zeros([SLOTS], tl.int64) + fill, mask=(slot >= count) & (slot < num))


def fps_gpu(coord: Tensor, starts: Tensor, chosen: Tensor, chosen_starts: Tensor, *, start: int, skip: float) -> None:
    """Fill ``chosen`` (q,) with samples of every cloud in ``coord`` (p, 3), cloud after cloud.

    All functions take ``starts`` from the device, which costs nothing, or from the CPU, which copies them there.
    """
    distance = torch.empty(len(coord), device=coord.device)
    grid = (len(starts) - 1,)
    starts, chosen_starts = starts.to(coord.device), chosen_starts.to(coord.device)
    _fps[grid](coord, starts, chosen, chosen_starts, distance, start, skip, BLOCK=_BLOCK, enable_fp_fusion=False)


def knn_gpu(query: Tensor, query_starts: Tensor, coord: Tensor, starts: Tensor, k: int) -> Tensor:
    """Return the ``k`` nearest points of the own cloud for every query (q, 3)."""
    index = torch.empty((len(query), k), dtype=torch.long, device=coord.device)
    owner, slots = _owners(query_starts, query), triton.next_power_of_2(k)
    starts = starts.to(coord.device)
    _knn[(len(query),)](query, owner, coord, starts, index, k, SLOTS=slots, BLOCK=_BLOCK, enable_fp_fusion=False)
    return index


def ball_gpu(query: Tensor, query_starts: Tensor, coord: Tensor, starts: Tensor, *, radius: float, num: int) -> Tensor:
    """Return the first ``num`` points of the own cloud inside the ball around every query (q, 3)."""
    index = torch.empty((len(query), num), dtype=torch.long, device=coord.device)
    owner, slots = _owners(query_starts, query), triton.next_power_of_2(num)
    starts, limit = starts.to(coord.device), float(torch.tensor(radius, dtype=torch.float32).square())
    _ball[(len(query),)](
        query, owner, coord, starts, index, limit, num, SLOTS=slots, BLOCK=_BLOCK, enable_fp_fusion=False
    )
    return index


def _owners(query_starts: Tensor, query: Tensor) -> Tensor:
    """Return the cloud of every query."""
    return torch.repeat_interleave(query_starts.to(query.device).diff(), output_size=len(query))
