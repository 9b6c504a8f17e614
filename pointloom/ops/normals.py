"""Normals of points that came without them."""

import torch
from jaxtyping import Float
from torch import Tensor

from pointloom.ops.neighbors import knn_ragged

_ROWS = 2**16


def estimate_normals(coord: Float[Tensor, "n 3"], *, k: int = 16) -> Float[Tensor, "n 3"]:
    """Return the direction in which each point's nearest ones spread least, as unit vectors that point upwards.

    Args:
        coord: Points of one scene.
        k: Neighbours, the point itself included; fewer where there are fewer points.

    Raises:
        ValueError: There are no points, or (on a CPU) a coordinate is not finite.
    """
    end = torch.tensor([len(coord)], device=coord.device)
    near = knn_ragged(coord, end, coord, end, min(k, len(coord)))
    found = []
    for rows in near.split(_ROWS):
        points = coord[rows]
        centered = points - points.mean(1, keepdim=True)
        found.append(torch.linalg.eigh(centered.transpose(1, 2) @ centered)[1][..., 0])
    normal = torch.cat(found)
    return torch.where(normal[:, 2:] < 0, -normal, normal)
