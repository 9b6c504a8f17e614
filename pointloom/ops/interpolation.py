"""Features from centres to points, weighted by inverse distances, fused on the CPU."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels import spreading
from pointloom.ops.arrays import at_least_single
from pointloom.ops.backend import choose_backend
from pointloom.ops.grouping import gather_points
from pointloom.ops.neighbors import knn, knn_ragged
from pointloom.ops.segments import clouds_of, require_rows
from pointloom.ops.threads import add_parts, run_parts


def interpolate_features(
    query: Float[Tensor, "b m 3"],
    centers: Float[Tensor, "b t 3"],
    feature: Float[Tensor, "b t c"],
    *,
    k: int = 3,
    backend: str | None = None,
) -> Float[Tensor, "b m c"]:
    """Spread features from centres to points, weighted by inverse squared distance (PointNet++, section 3.4).

    Gradients flow to the features and, through the weights, to both kinds of coordinates. Half precision is computed in
    single precision.

    Args:
        query: Where features are wanted.
        centers: Where features are known.
        feature: The known features.
        k: How many nearest centres contribute; fewer where there are fewer centres.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Raises:
        ValueError: ``k`` is below 1, there is no centre, a centre has no feature, or (on a CPU) a coordinate is not
            finite or above 1e18.
    """
    if feature.shape[:2] != centers.shape[:2]:
        raise ValueError(f"{tuple(centers.shape)} centres and {tuple(feature.shape)} features do not belong together")
    query, centers, feature = (at_least_single(each) for each in (query, centers, feature))
    index = knn(query, centers, min(k, centers.shape[1]), backend=backend)
    offset = gather_points(centers, index) - query.unsqueeze(2)
    weight = 1.0 / (offset.square().sum(-1) + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    if choose_backend(query.device, backend) == "numba":
        B, T = feature.shape[:2]
        index = index + T * torch.arange(B).view(B, 1, 1)
        flat = (each.flatten(0, 1) for each in (feature, index, weight))
        return _WeightedRows.apply(*flat).unflatten(0, (B, -1))  # type: ignore[no-untyped-call]
    return (gather_points(feature, index) * weight.unsqueeze(-1)).sum(2)


@torch.no_grad()
def nearest_weights(
    query: Float[Tensor, "q 3"],
    query_offset: Int[Tensor, " s"],
    centers: Float[Tensor, "p 3"],
    offset: Int[Tensor, " s"],
    *,
    k: int = 3,
    power: Literal[1, 2] = 1,
    backend: str | None = None,
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """Find the nearest centres of points in clouds of different sizes, and how much each of them counts.

    Args:
        query: Where features are wanted.
        query_offset: Where the queries of each cloud end.
        centers: Where features are known.
        offset: Where the centres of each cloud end.
        k: How many nearest centres count; a cloud with fewer has weights of 0 behind them.
        power: Weights are 1 / (distance ** power + 1e-8), then divided by their sum; PointNet++ squares distances,
            Point Transformer does not.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Returns:
        Rows of ``centers``, and weights that sum to 1; without gradient.

    Raises:
        ValueError: The offsets do not fit, or (on a CPU) a coordinate is not finite or above 1e18.
    """
    index = knn_ragged(query, query_offset, centers, offset, k, repeat=True, backend=backend)
    squared = (centers.float()[index] - query.float().unsqueeze(1)).square().sum(-1)
    weight = 1.0 / ((squared if power == 2 else squared.sqrt()) + 1e-8)
    sizes = offset.diff(prepend=offset.new_zeros(1))[clouds_of(query_offset, len(query))]
    weight = weight.masked_fill(torch.arange(k, device=index.device) >= sizes.unsqueeze(1), 0.0)
    return index, weight / weight.sum(1, keepdim=True)


def weighted_rows(
    feature: Float[Tensor, "p c"],
    index: Int[Tensor, "q k"],
    weight: Float[Tensor, "q k"],
    *,
    backend: str | None = None,
) -> Float[Tensor, "q c"]:
    """Return sums of a few rows of ``feature``, each times its weight; at least in single precision.

    Raises:
        IndexError: ``feature`` has no such row.
    """
    feature, weight = at_least_single(feature), at_least_single(weight)
    if choose_backend(feature.device, backend) == "numba":
        require_rows(index, len(feature))
        return _WeightedRows.apply(feature, index, weight)  # type: ignore[no-untyped-call]
    return (feature[index] * weight.unsqueeze(-1)).sum(1)


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feature: Float[Tensor, "p c"], index: Int[Tensor, "q k"], weight: Float[Tensor, "q k"]
    ) -> Float[Tensor, "q c"]:
        feature, weight = feature.contiguous(), weight.contiguous()
        ctx.save_for_backward(feature, index, weight)
        out = feature.new_empty(len(index), feature.shape[1])
        source, at, weights, rows = (each.detach().numpy() for each in (feature, index, weight, out))

        def spread(first: int, end: int) -> None:
            spreading.weighted_rows(source, at[first:end], weights[first:end], rows[first:end])

        run_parts(spread, len(out), cost=index.shape[1] * feature.shape[1])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        feature, index, weight = ctx.saved_tensors
        of_feature, of_weight = torch.zeros_like(feature), torch.empty_like(weight)
        given = (gradient.contiguous(), feature, index, weight, of_feature, of_weight)
        share, source, at, weights, total, of_weights = (each.detach().numpy() for each in given)

        def spread(first: int, end: int, own: Any) -> None:
            rows = at[first:end], weights[first:end]
            spreading.weighted_rows_backward(share[first:end], source, *rows, own, of_weights[first:end])

        add_parts(spread, len(share), cost=2 * index.shape[1] * feature.shape[1], totals=(total,))
        return of_feature, None, of_weight
