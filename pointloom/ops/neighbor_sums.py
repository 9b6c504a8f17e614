"""What vector attention over neighbours reads and writes, fused on the CPU (Point Transformer, equation 3)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels import neighbor_sums as kernels
from pointloom.ops.backend import choose_backend


def neighbor_rows(
    feature: Float[Tensor, "p c"],
    index: Int[Tensor, "q k"],
    added: Float[Tensor, "q k c"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "q k c"]:
    """Return the ``index``-th rows of ``feature`` plus ``added``, at least in single precision.

    Args:
        feature: A vector per point.
        index: Rows of neighbours.
        added: A vector per pair.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide. With ``numba`` nothing but the result is
            allocated, and the gradient is added up in place.
    """
    if _fused(feature, added, backend=backend):
        return _NeighborRows.apply(feature.float(), index, added.float())  # type: ignore[no-untyped-call]
    return feature[index] + added


def neighbor_sums(
    value: Float[Tensor, "p c"],
    index: Int[Tensor, "q k"],
    added: Float[Tensor, "q k c"],
    weight: Float[Tensor, "q k g"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "q c"]:
    """Return the weighted sums over neighbours of their rows of ``value`` plus ``added``.

    Args:
        value: A vector per point.
        index: Rows of neighbours.
        added: A vector per pair.
        weight: Of every pair; channel ``i`` uses weight ``i`` modulo g, so that c / g channels share one.
        backend: As for ``neighbor_rows``; with ``numba`` the sums of values and ``added`` are never stored.

    Raises:
        ValueError: The channels are no multiple of the weights.
    """
    (Q, K, C), G = added.shape, weight.shape[2]
    if C % G:
        raise ValueError(f"{C} channels cannot share {G} weights evenly")
    if _fused(value, added, weight, backend=backend):
        return _NeighborSums.apply(value.float(), index, added.float(), weight.float())  # type: ignore[no-untyped-call]
    joined = (value[index] + added).view(Q, K, C // G, G)
    return (joined * weight.unsqueeze(2)).sum(1).view(Q, C)


def _fused(*tensors: Tensor, backend: str | None) -> bool:
    """Whether the kernels compute this: single precision (half precision is widened), on a CPU."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return not wide and choose_backend(tensors[0].device, backend) == "numba"


class _NeighborRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, index: Tensor, added: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.num_rows = len(feature)
        out = torch.empty_like(added, memory_format=torch.contiguous_format)
        kernels.add_rows(*_arrays(feature, index, added, out))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        (index,) = ctx.saved_tensors
        of_feature = gradient.new_zeros(ctx.num_rows, gradient.shape[-1])
        kernels.add_rows_backward(*_arrays(gradient, index, of_feature))
        return of_feature, None, gradient


class _NeighborSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, index: Tensor, added: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(value, index, added, weight)
        out = value.new_zeros(len(index), value.shape[1])
        kernels.weighted_sums(*_arrays(value, index, added, weight, out))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        value, index, added, weight = ctx.saved_tensors
        of_value, of_weight = value.new_zeros(value.shape), weight.new_zeros(weight.shape)
        of_added = torch.empty_like(added, memory_format=torch.contiguous_format)
        outputs = (of_value, of_added, of_weight)
        kernels.weighted_sums_backward(*_arrays(gradient, value, index, added, weight, *outputs))
        return of_value, None, of_added, of_weight


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
