"""A linear layer and the maximum over the points of a patch, with a gradient that costs a fraction of the layer's."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pointloom.kernels import winners as kernels
from pointloom.ops.arrays import shared_array
from pointloom.ops.backend import choose_backend
from pointloom.ops.pooling import max_over_points
from pointloom.ops.threads import add_parts, run_parts

_KERNEL_TYPES = (torch.float32, torch.bfloat16)
PIECE = 2**18  # numbers that the layer makes at once per thread, so that they stay in the caches


def linear_max(
    point: Float[Tensor, "p k d"], weight: Float[Tensor, "c d"], *, backend: str | None = None
) -> Float[Tensor, "p c"]:
    """Return the maxima over the members of every patch of ``point @ weight.T``.

    Per patch and channel one member wins and alone has a gradient, so both products of the backward pass shrink by the
    number of members: with 32 of them the layer costs little more forward and backward than forward alone.

    Args:
        point: Features of the members of every patch.
        weight: Of the layer; a bias is added to the maxima instead.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide. ``torch`` multiplies dense gradients.

    Note:
        Of tied members the first has the gradient with ``numba``, as with ``torch.max``, all share it with ``torch``.
    """
    plain = weight.dtype != torch.float32 or point.dtype not in _KERNEL_TYPES
    if plain or choose_backend(point.device, backend) != "numba":
        return max_over_points(F.linear(point, weight))
    return _LinearMax.apply(point, weight)  # type: ignore[no-untyped-call]


def find_winners(feature: NDArray[Any], highest: NDArray[np.float32], winner: NDArray[np.int16]) -> None:
    """Fill maxima over the members of ``feature`` (p, k, c) and the first member that has each, on all threads."""

    def find(first: int, end: int) -> None:
        kernels.find_winners(feature[first:end], highest[first:end], winner[first:end])

    run_parts(find, len(feature), cost=feature[0].size)


def winners_backward(  # noqa: PLR0917 - the kernel's order
    gradient: NDArray[np.float32], winner: NDArray[np.int16], point: NDArray[Any], weight: NDArray[np.float32],
    of_point: NDArray[Any], of_weight: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``of_point`` (p, k, d) and add to ``of_weight`` (c, d), on all threads."""

    def add(first: int, end: int, own: NDArray[np.float32]) -> None:
        rows = gradient[first:end], winner[first:end], point[first:end]
        kernels.winners_backward(*rows, weight, of_point[first:end], own)

    add_parts(add, len(winner), cost=2 * weight.size, totals=(of_weight,))


class _LinearMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, point: Float[Tensor, "p k d"], weight: Float[Tensor, "c d"]) -> Float[Tensor, "p c"]:
        highest = torch.empty(len(point), len(weight))
        winner = torch.empty(len(point), len(weight), dtype=torch.int16)
        size = max(1, PIECE * torch.get_num_threads() // (point.shape[1] * len(weight)))
        for start in range(0, len(point), size):
            feature = F.linear(point[start : start + size], weight)
            where = slice(start, start + len(feature))
            find_winners(shared_array(feature), highest.numpy()[where], winner.numpy()[where])
        ctx.save_for_backward(point, weight, winner)
        return highest.to(feature.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        point, weight, winner = ctx.saved_tensors
        of_point = torch.empty_like(point, memory_format=torch.contiguous_format)
        of_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        arrays = (shared_array(point), shared_array(weight), shared_array(of_point), shared_array(of_weight))
        winners_backward(gradient.float().contiguous().numpy(), winner.numpy(), *arrays)
        return of_point, of_weight
