"""Convolution over occupied voxels only: gather rows, multiply by the weights of one place of the kernel, add up.

One function serves submanifold, strided and transposed convolutions; what differs is the kernel map. Weights have
spconv's layout (out, kx, ky, kz, in); the result is a cross-correlation, as in ``torch.nn.functional.conv3d``.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from pointloom.errors import BackendError
from pointloom.kernels.rows import add_rows
from pointloom.ops.curves import CODE_BITS, spread_bits
from pointloom.ops.threads import run_parts
from pointloom.ops.voxels import LIMIT, Voxels

ENVIRONMENT_VARIABLE = "POINTLOOM_SPARSE_BACKEND"
_CPU_PAIRS = 4096  # pairs that are multiplied at once, so that they stay in the cache


@dataclass(frozen=True)
class KernelMap:
    """Which input row meets which output row at every place of a kernel.

    At one place of the kernel no output row occurs twice, so that sums are the same in every run on every device.

    Attributes:
        source: Input rows, one place of the kernel after the other.
        target: The output rows they contribute to.
        ends: Where the pairs of each place end.
        num_source: Number of input rows.
        num_target: Number of output rows.
        center: The place at which every row meets itself; it has no pairs. None where there is no such place.
    """

    source: Int[Tensor, " n"]
    target: Int[Tensor, " n"]
    ends: tuple[int, ...]
    num_source: int
    num_target: int
    center: int | None

    def reversed(self) -> "KernelMap":
        """Swap input and output: the map of the transposed convolution."""
        return KernelMap(self.target, self.source, self.ends, self.num_target, self.num_source, self.center)

    @cached_property
    def table(self) -> "tuple[Int[Tensor, '2 k n'], Int[Tensor, ' k']]":
        """Pairs and their number per place of the kernel, as spconv keeps them: padded, the middle place included."""
        counts = [end - start for start, end in zip((0, *self.ends), self.ends, strict=False)]
        if self.center is not None:
            counts[self.center] = self.num_source
        table = torch.full((2, len(counts), max(counts)), -1, dtype=torch.int32, device=self.source.device)
        for place, source, target in self.pairs(None):
            table[0, place, : len(source)], table[1, place, : len(target)] = source, target
        if self.center is not None:
            table[:, self.center, : self.num_source] = torch.arange(self.num_source, device=table.device)
        return table, torch.tensor(counts, dtype=torch.int32, device=table.device)

    def pairs(self, most: int | None) -> "list[tuple[int, Tensor, Tensor]]":
        """Return (place, input rows, output rows), at most ``most`` pairs at a time."""
        parts, start = [], 0
        for place, end in enumerate(self.ends):
            step = most or max(end - start, 1)
            for first in range(start, end, step):
                last = min(first + step, end)
                parts.append((place, self.source[first:last], self.target[first:last]))
            start = end
        return parts


def neighbor_map(voxels: Voxels, kernel_size: int) -> KernelMap:
    """Return the map of a submanifold convolution: every voxel sees the occupied ones around it.

    Args:
        voxels: Where features are, before and after.
        kernel_size: Voxels along each side of the kernel, odd.

    Raises:
        ValueError: The size is even or below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"a submanifold convolution needs an odd kernel size, got {kernel_size}")
    reach = kernel_size // 2
    half = list(product(range(-reach, reach + 1), repeat=3))[: kernel_size**3 // 2]
    spread = {step: _spread_axes(voxels.coord + step) for step in range(-reach, reach + 1)}
    scene, num = voxels.scene << CODE_BITS, len(voxels.key)
    found = torch.empty((len(half), num), dtype=torch.int64, device=scene.device)
    for place, (dx, dy, dz) in enumerate(half):
        (x, y, z), (x_fits, y_fits, z_fits) = (
            (spread[dx][0][0], spread[dy][0][1], spread[dz][0][2]),
            (spread[dx][1][0], spread[dy][1][1], spread[dz][1][2]),
        )
        found[place] = voxels.find_key(scene | (x << 2) | (y << 1) | z, x_fits & y_fits & z_fits)
    hit = found >= 0
    counts = hit.sum(1).tolist()  # the device is waited for here and at the next line, not once per place
    pair = hit.view(-1).nonzero().squeeze(1)
    source, target = found.view(-1)[pair], pair % num
    return _joined(
        torch.cat([source, *target.split(counts)[::-1]]),
        torch.cat([target, *source.split(counts)[::-1]]),
        [*counts, 0, *counts[::-1]],
        num_source=num, num_target=num, center=len(half),
    )  # fmt: skip


def child_map(voxels: Voxels, parent: Int[Tensor, " v"], num_parents: int) -> KernelMap:
    """Return the map of a convolution of size and stride 2: every parent sees its children.

    Its ``reversed()`` is that of the transposed convolution, which brings features back to exactly these voxels.
    """
    slot = voxels.key & 7  # 4 (x mod 2) + 2 (y mod 2) + (z mod 2)
    order = slot.argsort(stable=True)
    counts = torch.bincount(slot, minlength=8).tolist()
    return _joined(order, parent[order], counts, num_source=len(slot), num_target=num_parents, center=None)


def sparse_convolution(
    feature: Float[Tensor, "n c"],
    weight: Float[Tensor, "d kx ky kz c"],
    kernel_map: KernelMap,
    *,
    backend: str | None = None,
) -> Float[Tensor, "m d"]:
    """Convolve features of voxels.

    Memory beside input and output is that of the pairs of one place of the kernel. In mixed precision the products
    are of low precision on a GPU and the sums are not; on a CPU everything is float32.

    Args:
        feature: One vector per input row of the map.
        weight: In spconv's layout.
        kernel_map: Which rows meet.
        backend: ``torch`` (any device, the default), or ``spconv`` where that package is installed; None asks the
            environment variable ``POINTLOOM_SPARSE_BACKEND``.

    Raises:
        ValueError: The map is for another number of rows or another kernel.
        BackendError: The backend is unknown or not installed.
    """
    convolve = _backend(backend or os.environ.get(ENVIRONMENT_VARIABLE) or "torch")
    places = weight.shape[1] * weight.shape[2] * weight.shape[3]
    if len(feature) != kernel_map.num_source or places != len(kernel_map.ends):
        raise ValueError(
            f"the kernel map is for {kernel_map.num_source} rows and {len(kernel_map.ends)} places of a kernel, "
            f"got {len(feature)} and {places}"
        )
    device = feature.device.type
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and device != "cpu" else None
    dtype = torch.promote_types(feature.dtype, torch.float32) if low is None else low
    with torch.autocast(device, enabled=False):
        return convolve(feature.to(dtype), weight.to(dtype), kernel_map)


def _backend(name: str) -> "Callable[[Tensor, Tensor, KernelMap], Tensor]":
    if name == "torch":
        return _SparseConvolution.apply
    if name != "spconv":
        raise BackendError(
            f"unknown backend {name!r} of sparse convolutions; known: torch, spconv (set by argument or by "
            f"{ENVIRONMENT_VARIABLE})"
        )
    from pointloom.ops.spconv_backend import spconv_convolution

    return spconv_convolution


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(feature, weight)
        ctx.kernel_map = kernel_map
        by_place = weight.flatten(1, 3)
        return _convolve(feature, [by_place[:, k].t() for k in range(by_place.shape[1])], kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feature, weight = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        by_place = weight.flatten(1, 3)
        gradient = gradient.to(feature.dtype).contiguous()
        of_feature = of_weight = None
        if ctx.needs_input_grad[0]:
            transposed = [by_place[:, k] for k in range(by_place.shape[1])]
            of_feature = _convolve(gradient, transposed, kernel_map.reversed()).to(feature.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(feature, gradient, by_place, kernel_map).view(weight.shape)
        return of_feature, of_weight, None


def _convolve(feature: Tensor, weights: list[Tensor], kernel_map: KernelMap) -> Tensor:
    """Add up ``feature[source] @ weights[place]`` at ``target``, in float32 or better."""
    feature = feature.contiguous()
    precise = torch.promote_types(feature.dtype, torch.float32)
    if kernel_map.center is None:
        out = feature.new_zeros((kernel_map.num_target, weights[0].shape[1]), dtype=precise)
    else:
        out = (feature @ weights[kernel_map.center]).to(precise)
    on_cpu = feature.device.type == "cpu"
    for place, source, target in kernel_map.pairs(_CPU_PAIRS if on_cpu else None):
        part = feature.index_select(0, source) @ weights[place]
        if on_cpu:
            _add_rows(out.numpy(), target.numpy(), part.numpy())
        else:
            out.index_add_(0, target, part.to(precise))
    return out


def _add_rows(out: NDArray[Any], target: NDArray[np.int64], rows: NDArray[Any]) -> None:
    """Add rows on all threads: no place of a kernel has two pairs with the same target."""

    def add(first: int, end: int) -> None:
        add_rows(out, target[first:end], rows[first:end])

    run_parts(add, len(rows), cost=rows.shape[1])


def _weight_gradient(feature: Tensor, gradient: Tensor, by_place: Tensor, kernel_map: KernelMap) -> Tensor:
    total = torch.zeros_like(by_place, dtype=torch.promote_types(by_place.dtype, torch.float32))
    if kernel_map.center is not None:
        total[:, kernel_map.center] = gradient.t() @ feature
    for place, source, target in kernel_map.pairs(_CPU_PAIRS if feature.device.type == "cpu" else None):
        total[:, place] += gradient.index_select(0, target).t() @ feature.index_select(0, source)
    return total.to(by_place.dtype)


def _spread_axes(coord: Int[Tensor, "v 3"]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the spread bits of each axis, and whether the place is inside of the grid along it."""
    fits = (coord >= 0) & (coord < LIMIT)
    return spread_bits(coord.clamp(0, LIMIT - 1)).unbind(-1), fits.unbind(-1)


def _joined(
    source: Tensor, target: Tensor, counts: Sequence[int], *, num_source: int, num_target: int, center: int | None
) -> KernelMap:
    """Return a map from input and output rows, place after place, and their number at every place."""
    return KernelMap(source, target, tuple(accumulate(counts)), num_source, num_target, center)
