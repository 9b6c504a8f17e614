"""What vector attention over neighbours reads and writes, fused on the CPU (Point Transformer, equation 3)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pointloom.kernels import neighbor_sums as kernels
from pointloom.ops.backend import choose_backend
from pointloom.ops.segments import require_rows
from pointloom.ops.threads import add_parts, run_parts


def neighbor_rows(
    feature: Float[Tensor, "p c"],
    index: Int[Tensor, "q k"],
    place: Float[Tensor, "q k 3"],
    weight: Float[Tensor, "c 3"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "q k c"]:
    """Return the ``index``-th rows of ``feature`` plus a linear map of where they are.

    Args:
        feature: A vector per point.
        index: Rows of neighbours.
        place: Three numbers per pair, such as relative coordinates or a hidden layer on them.
        weight: Of a linear layer on ``place``; a bias can be part of ``feature``.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide. With ``numba`` nothing but the result is
            allocated, in single precision, and gradients are added up in place.

    Raises:
        IndexError: ``feature`` has no such row.
    """
    if _fused(feature, place, backend=backend):
        require_rows(index, len(feature))
        return _NeighborRows.apply(feature.float(), index, place.float(), weight.float())  # type: ignore[no-untyped-call]
    return feature[index] + F.linear(place, weight)


def neighbor_sums(
    value: Float[Tensor, "p c"],
    index: Int[Tensor, "q k"],
    place: Float[Tensor, "q k 3"],
    weight: Float[Tensor, "c 3"],
    share: Float[Tensor, "q k g"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "q c"]:
    """Return weighted sums over neighbours of what ``neighbor_rows`` returns.

    Args:
        value: A vector per point.
        index: Rows of neighbours.
        place: As for ``neighbor_rows``.
        weight: As for ``neighbor_rows``.
        share: Weights of every pair; channel ``i`` uses number ``i`` modulo g, so that c / g channels have the same.
        backend: As for ``neighbor_rows``; with ``numba`` the summands are never stored.

    Raises:
        ValueError: The channels are no multiple of the weights.
        IndexError: ``value`` has no such row.
    """
    (Q, K, G), C = share.shape, value.shape[1]
    if C % G:
        raise ValueError(f"{C} channels cannot share {G} weights evenly")
    if _fused(value, place, share, backend=backend):
        require_rows(index, len(value))
        given = (value.float(), index, place.float(), weight.float(), share.float())
        return _NeighborSums.apply(*given)  # type: ignore[no-untyped-call]
    rows = (value[index] + F.linear(place, weight)).view(Q, K, C // G, G)
    return (rows * share.unsqueeze(2)).sum(1).view(Q, C)


def _fused(*tensors: Tensor, backend: str | None) -> bool:
    """Whether the kernels compute this: single precision (half precision is widened), on a CPU."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return not wide and choose_backend(tensors[0].device, backend) == "numba"


class _NeighborRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, index: Tensor, place: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(index, place, weight)
        ctx.num_rows = len(feature)
        out = feature.new_empty(*index.shape, feature.shape[1])
        source, at, where, matrix, rows = _arrays(feature, index, place, weight.T, out)

        def add(first: int, end: int) -> None:
            kernels.add_rows(source, at[first:end], where[first:end], matrix, rows[first:end])

        run_parts(add, len(out), cost=out[0].numel())
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        index, place, weight = ctx.saved_tensors
        of_feature = gradient.new_zeros(ctx.num_rows, gradient.shape[-1])
        of_place, of_weight = place.new_empty(place.shape), weight.new_zeros(3, len(weight))
        share, at, where, matrix, of_where = _arrays(gradient, index, place, weight.T, of_place)

        def add(first: int, end: int, of_rows: Any, of_matrix: Any) -> None:
            rows = share[first:end], at[first:end], where[first:end]
            kernels.add_rows_backward(*rows, matrix, of_where[first:end], of_rows, of_matrix)

        add_parts(add, len(share), cost=share[0].size, totals=(of_feature.numpy(), of_weight.numpy()))
        return of_feature, None, of_place, of_weight.T


class _NeighborSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, index: Tensor, place: Tensor, weight: Tensor, share: Tensor) -> Tensor:  # noqa: PLR0917 - torch passes them by position
        ctx.save_for_backward(value, index, place, weight, share)
        out = value.new_zeros(len(index), value.shape[1])
        source, at, where, matrix, shares, rows = _arrays(value, index, place, weight.T, share, out)

        def add(first: int, end: int) -> None:
            own = shares[first:end], rows[first:end]
            kernels.weighted_sums(source, at[first:end], where[first:end], matrix, *own)

        run_parts(add, len(out), cost=index.shape[1] * value.shape[1])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        value, index, place, weight, share = ctx.saved_tensors
        of_value, of_share = value.new_zeros(value.shape), share.new_zeros(share.shape)
        of_place, of_weight = place.new_empty(place.shape), weight.new_zeros(3, len(weight))
        given, source, at, where, matrix = _arrays(gradient, value, index, place, weight.T)
        shares, of_where, of_shares = _arrays(share, of_place, of_share)

        def add(first: int, end: int, of_values: Any, of_matrix: Any) -> None:
            rows = slice(first, end)
            pairs = where[rows], matrix, shares[rows], of_where[rows], of_shares[rows]
            kernels.weighted_sums_backward(given[rows], source, at[rows], *pairs, of_values, of_matrix)

        cost = index.shape[1] * value.shape[1]
        add_parts(add, len(given), cost=cost, totals=(of_value.numpy(), of_weight.numpy()))
        return of_value, None, of_place, of_weight.T, of_share


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
