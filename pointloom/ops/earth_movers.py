"""Earth mover's distance between sets of equally many points."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pointloom.ops.arrays import at_least_single
from pointloom.ops.grouping import gather_points


def earth_movers_distance(pred: Float[Tensor, "b n 3"], target: Float[Tensor, "b n 3"]) -> Float[Tensor, ""]:
    """Mean distance from every point to its own partner, for the pairing of the two sets that makes it smallest.

    The definition of Fan, Su and Guibas (2017, equation 3), divided by the number of points and averaged over the
    batch. The pairing is the exact one, found without gradient, on the CPU; the gradient flows through the distances of
    the pairs. Half precision is computed in single precision.

    Raises:
        ValueError: The two sets differ in shape.

    Note:
        For sets of many points an approximation (auction, Sinkhorn) is usual. For patches SciPy's exact solver is fast
        enough: on one core about 0.01 ms for 8 points and 0.05 ms for 16.
    """
    if pred.shape != target.shape:
        raise ValueError(f"every point needs a partner of its own, got {tuple(pred.shape)} and {tuple(target.shape)}")
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, target = at_least_single(pred), at_least_single(target)
        costs = (pred.detach().unsqueeze(2) - target.detach().unsqueeze(1)).norm(dim=-1)
        costs = costs.nan_to_num()  # the result stays NaN; the solver would raise an error that names no point
        partners = np.stack([linear_sum_assignment(cost)[1] for cost in costs.cpu().numpy()])
        matched = gather_points(target, torch.from_numpy(partners).to(target.device))
        squared = (pred - matched).square().sum(-1)
        return (squared + torch.finfo(squared.dtype).tiny).sqrt().mean()  # finite gradient at distance zero
