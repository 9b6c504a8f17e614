"""Features from centres to points by inverse squared distance, fused on the CPU."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels.spreading import weighted_rows, weighted_rows_backward
from pointloom.ops.backend import choose_backend
from pointloom.ops.grouping import gather_points
from pointloom.ops.neighbors import knn


def interpolate_features(
    query: Float[Tensor, "b m 3"],
    centers: Float[Tensor, "b t 3"],
    feature: Float[Tensor, "b t c"],
    *,
    k: int = 3,
    backend: str | None = None,
) -> Float[Tensor, "b m c"]:
    """Spread features from centres to points, weighted by inverse squared distance (PointNet++, section 3.4).

    Gradients flow to the features and, through the weights, to both kinds of coordinates.

    Args:
        query: Where features are wanted.
        centers: Where features are known.
        feature: The known features.
        k: How many nearest centres contribute; fewer where there are fewer centres.
        backend: One of ``BACKENDS``; None lets ``choose_backend`` decide.

    Raises:
        ValueError: ``k`` is below 1, there is no centre, or (on a CPU) a coordinate is not finite.
    """
    index = knn(query, centers, min(k, centers.shape[1]), backend=backend)
    offset = gather_points(centers, index) - query.unsqueeze(2)
    weight = 1.0 / (offset.square().sum(-1) + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    if choose_backend(query.device, backend) == "numba":
        feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
        return _WeightedRows.apply(feature, index, weight)  # type: ignore[no-untyped-call]
    return (gather_points(feature, index) * weight.unsqueeze(-1)).sum(2)


class _WeightedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, feature: Float[Tensor, "b t c"], index: Int[Tensor, "b m k"], weight: Float[Tensor, "b m k"]
    ) -> Float[Tensor, "b m c"]:
        feature, weight = feature.contiguous(), weight.contiguous()
        ctx.save_for_backward(feature, index, weight)
        out = feature.new_empty((*index.shape[:2], feature.shape[-1]))
        weighted_rows(feature.detach().numpy(), index.numpy(), weight.detach().numpy(), out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        feature, index, weight = ctx.saved_tensors
        of_feature, of_weight = torch.zeros_like(feature), torch.empty_like(weight)
        arrays = (gradient.contiguous(), feature, index, weight, of_feature, of_weight)
        weighted_rows_backward(*(array.detach().numpy() for array in arrays))
        return of_feature, None, of_weight
