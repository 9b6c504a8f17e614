"""Features between voxels: a sparse gather of the eight around a point."""

from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.ops.interpolation import weighted_rows
from pointloom.ops.voxels import Voxels

_QUERIES = 2**16  # positions that are looked at at once


def sample_voxels(
    feature: Float[Tensor, "v c"],
    voxels: Voxels,
    position: Float[Tensor, "q 3"],
    scene: Int[Tensor, " q"],
    *,
    normalize: bool,
) -> Float[Tensor, "q c"]:
    """Interpolate features tri-linearly at any positions.

    Args:
        feature: One vector per voxel.
        voxels: Where they are.
        position: In voxels: whole numbers are the middles of voxels, (0, 0, 0) is the middle of the grid's first one.
        scene: Scene of each position.
        normalize: Divide by the weight of the occupied voxels; False: empty ones count as features of 0. A position
            without any occupied voxel around it gets 0 in both cases.
    """
    parts = [
        _sample(feature, voxels, part, scenes, normalize)
        for part, scenes in zip(position.split(_QUERIES), scene.split(_QUERIES), strict=True)
    ]
    return torch.cat(parts)


def _sample(
    feature: Float[Tensor, "v c"],
    voxels: Voxels,
    position: Float[Tensor, "q 3"],
    scene: Int[Tensor, " q"],
    normalize: bool,
) -> Float[Tensor, "q c"]:
    base = position.floor()
    share = (position - base).unsqueeze(1)
    corners = torch.tensor(list(product((0, 1), repeat=3)), device=position.device)
    weight = torch.where(corners.bool(), share, 1 - share).prod(-1)  # (q, 8)
    row = voxels.find(base.long().unsqueeze(1) + corners, scene.unsqueeze(1).expand(-1, 8))
    weight = torch.where(row >= 0, weight, 0.0)
    if normalize:
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-6)
    return weighted_rows(feature, row.clamp_min(0), weight)
