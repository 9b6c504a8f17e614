"""Gathering rows by index and cutting clouds into patches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.kernels import pointnet2
from pointloom.ops.backend import choose_backend
from pointloom.ops.neighbors import knn
from pointloom.ops.sampling import farthest_point_sampling
from pointloom.structures import Groups

GROUPED = 3  # axes of an index that has several rows per place


def gather_points(feature: Float[Tensor, "b n c"], index: Int[Tensor, "b *m"]) -> Float[Tensor, "b *m c"]:
    """Pick rows of every cloud by index."""
    if index.ndim == GROUPED and feature.dtype == torch.float32 and choose_backend(feature.device) == "pointnet2":
        return pointnet2.gather_rows(feature, index)
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
