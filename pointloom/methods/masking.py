"""Which patches a method hides. A mask is True where a patch is hidden from the encoder."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pointloom.ops import gather_points, knn
from pointloom.structures import Groups


def random_mask(centers: Float[Tensor, "b g 3"], *, ratio: float) -> Bool[Tensor, "b g"]:
    """Hide ``int(ratio * g)`` patches of every cloud, chosen uniformly (Point-MAE, section 3.1)."""
    B, G, _ = centers.shape
    order = torch.rand(B, G, device=centers.device).argsort(1)
    return order < int(ratio * G)


def block_mask(centers: Float[Tensor, "b g 3"], *, ratio: float) -> Bool[Tensor, "b g"]:
    """Hide the ``int(ratio * g)`` patches nearest to a random patch, itself included (Point-MAE, section 4.4)."""
    B, G, _ = centers.shape
    seed = torch.randint(G, (B, 1), device=centers.device)
    nearest = knn(gather_points(centers, seed), centers, int(ratio * G)).squeeze(1)
    return torch.zeros(B, G, dtype=torch.bool, device=centers.device).scatter(1, nearest, True)


def visible_points(groups: Groups, hidden: Bool[Tensor, "b g"], *, num_points: int) -> Bool[Tensor, "b n"]:
    """Return which of the ``num_points`` points that were cut into patches lie in a patch that is not hidden."""
    visible = torch.zeros(len(hidden), num_points + 1, dtype=torch.bool, device=hidden.device)
    shown = torch.where(hidden.unsqueeze(-1), num_points, groups.index).flatten(1)  # one more place for hidden ones
    return visible.scatter_(1, shown, True)[:, :num_points]


MASKS = {"random": random_mask, "block": block_mask}
