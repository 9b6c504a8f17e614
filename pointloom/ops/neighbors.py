"""Nearest neighbours, gathering, patches around centres and feature interpolation."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom import kernels
from pointloom.ops.backend import choose_backend
from pointloom.ops.sampling import farthest_point_sampling
from pointloom.structures import Groups

_CDIST_MODE = (
    "donot_use_mm_for_euclid_dist"  # the matrix-product form loses precision for coordinates of several metres
)


def knn(
    query: Float[Tensor, "b m 3"], coord: Float[Tensor, "b n 3"], k: int, *, backend: str | None = None
) -> Int[Tensor, "b m k"]:
    """Return the indices of the ``k`` points of ``coord`` nearest to every query, nearest first.

    Args:
        query: Where to look from.
        coord: The points to find.
        k: How many, 1 to n.
        backend: ``torch`` or ``numba``; None lets ``choose_backend`` decide. They differ in the order of ties only.

    Raises:
        ValueError: ``k`` is not in 1..n, or (numba) a coordinate is not finite.
    """
    N = coord.shape[1]
    if not 1 <= k <= N:
        raise ValueError(f"cannot find {k} neighbours in clouds of {N} points; give 1 to {N}")
    query, coord = query.detach().float(), coord.detach().float()
    if choose_backend(coord.device, backend) == "numba":
        index = np.empty((*query.shape[:2], k), dtype=np.int64)
        if not kernels.knn_batch(query.contiguous().numpy(), coord.contiguous().numpy(), index):
            raise ValueError("coordinates must be finite, got NaN or infinity")
        return torch.from_numpy(index)
    with torch.autocast(device_type=coord.device.type, enabled=False):
        distance = torch.cdist(query, coord, compute_mode=_CDIST_MODE)
        return distance.topk(k, dim=-1, largest=False, sorted=True).indices


def gather_points(feature: Float[Tensor, "b n c"], index: Int[Tensor, "b *m"]) -> Float[Tensor, "b *m c"]:
    """Pick rows of every cloud by index."""
    flat = index.flatten(1)
    picked = feature.gather(1, flat.unsqueeze(-1).expand(-1, -1, feature.shape[-1]))
    return picked.unflatten(1, index.shape[1:])


def group_points(
    coord: Float[Tensor, "b n 3"],
    num_groups: int,
    group_size: int,
    *,
    skip_near_origin: float = 0.0,
) -> Groups:
    """Cut clouds into patches: farthest point samples as centres, their nearest neighbours as members.

    Raises:
        ValueError: There are fewer points than groups or than members of a group.
    """
    chosen = farthest_point_sampling(coord, num_groups, skip_near_origin=skip_near_origin)
    centers = gather_points(coord, chosen)
    index = knn(centers, coord, group_size)
    neighborhood = gather_points(coord, index) - centers.unsqueeze(2)
    return Groups(centers=centers, neighborhood=neighborhood, index=index)


def interpolate_features(
    query: Float[Tensor, "b m 3"], centers: Float[Tensor, "b t 3"], feature: Float[Tensor, "b t c"], *, k: int = 3
) -> Float[Tensor, "b m c"]:
    """Spread features from centres to points, weighted by inverse squared distance (PointNet++, section 3.4).

    Args:
        query: Where features are wanted.
        centers: Where features are known.
        feature: The known features.
        k: How many nearest centres contribute; fewer where there are fewer centres.
    """
    k = min(k, centers.shape[1])
    index = knn(query, centers, k)
    offset = gather_points(centers, index) - query.unsqueeze(2)
    weight = 1.0 / (offset.square().sum(-1) + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    return (gather_points(feature, index) * weight.unsqueeze(-1)).sum(2)
