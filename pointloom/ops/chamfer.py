"""Chamfer distance between sets of points."""

import torch
from jaxtyping import Float
from torch import Tensor

from pointloom.ops.grouping import gather_points
from pointloom.ops.neighbors import knn


def chamfer_distance(
    pred: Float[Tensor, "b n 3"], target: Float[Tensor, "b m 3"], *, norm: int = 2
) -> Float[Tensor, ""]:
    """Mean distance from every point to the nearest point of the other set, both ways, over the whole batch.

    ``norm=2`` adds the two means of squared distances; ``norm=1`` averages the two means of distances. These are the
    definitions of the extension that Point-MAE and Point-M2AE train with. Neighbours are found without gradient;
    the gradient flows through the matched pairs, which is the exact gradient of the minimum.

    Raises:
        ValueError: ``norm`` is neither 1 nor 2.
    """
    if norm not in (1, 2):
        raise ValueError(f"Chamfer distance has norm 1 or 2, got {norm}")
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, target = pred.float(), target.float()
        forward = (pred - gather_points(target, knn(pred, target, 1).squeeze(-1))).square().sum(-1)
        backward = (target - gather_points(pred, knn(target, pred, 1).squeeze(-1))).square().sum(-1)
        if norm == 2:
            return forward.mean() + backward.mean()
        tiny = torch.finfo(forward.dtype).tiny  # keeps the gradient of the root finite at distance zero
        return 0.5 * ((forward + tiny).sqrt().mean() + (backward + tiny).sqrt().mean())
