"""Chamfer distance between sets of points."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops.arrays import at_least_single
from pointloom.ops.grouping import gather_points
from pointloom.ops.neighbors import knn, knn_ragged
from pointloom.ops.segments import clouds_of


def chamfer_distance(
    pred: Float[Tensor, "b n 3"],
    target: Float[Tensor, "b m 3"],
    *,
    norm: int = 2,
    counted: Bool[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Mean distance from every point to the nearest point of the other set, both ways, over the whole batch.

    ``norm=2`` adds the two means of squared distances; ``norm=1`` averages the two means of distances. These are the
    definitions of the extension that Point-MAE and Point-M2AE train with. Neighbours are found without gradient;
    the gradient flows through the matched pairs, which is the exact gradient of the minimum. Half precision is computed
    in single precision.

    Args:
        pred: Points of one side.
        target: Points of the other side.
        norm: See above.
        counted: Which pairs of sets the mean is over, 0 if none; None for all. The others are computed too, so that no
            size depends on how many they are.

    Raises:
        ValueError: ``norm`` is neither 1 nor 2, or a set is empty.
    """
    if norm not in (1, 2):
        raise ValueError(f"Chamfer distance has norm 1 or 2, got {norm}")
    with torch.autocast(device_type=pred.device.type, enabled=False):
        pred, target = at_least_single(pred), at_least_single(target)
        forward = (pred - gather_points(target, knn(pred, target, 1).squeeze(-1))).square().sum(-1)
        backward = (target - gather_points(pred, knn(target, pred, 1).squeeze(-1))).square().sum(-1)
        if norm == 2:
            return _mean(forward, counted) + _mean(backward, counted)
        tiny = torch.finfo(forward.dtype).tiny  # keeps the gradient of the root finite at distance zero
        return 0.5 * (_mean((forward + tiny).sqrt(), counted) + _mean((backward + tiny).sqrt(), counted))


def chamfer_distance_ragged(
    pred: Float[Tensor, "q 3"],
    pred_offset: Int[Tensor, " s"],
    target: Float[Tensor, "p 3"],
    offset: Int[Tensor, " s"],
    *,
    norm: int = 2,
) -> Float[Tensor, " s"]:
    """Return the Chamfer distance of every pair of clouds, of different sizes, that lie one after the other.

    Args:
        pred: Points of one side.
        pred_offset: Where each of their clouds ends.
        target: Points of the other side.
        offset: Where each of their clouds ends.
        norm: As for ``chamfer_distance``.

    Raises:
        ValueError: ``norm`` is neither 1 nor 2, or the offsets do not fit.
    """
    if norm not in (1, 2):
        raise ValueError(f"Chamfer distance has norm 1 or 2, got {norm}")
    pred, target = at_least_single(pred), at_least_single(target)
    there = knn_ragged(pred, pred_offset, target, offset, 1).squeeze(1)
    back = knn_ragged(target, offset, pred, pred_offset, 1).squeeze(1)
    forward = (pred - target.index_select(0, there)).square().sum(-1)
    backward = (target - pred.index_select(0, back)).square().sum(-1)
    if norm == 2:
        return _means(forward, pred_offset) + _means(backward, offset)
    tiny = torch.finfo(forward.dtype).tiny  # keeps the gradient of the root finite at distance zero
    return 0.5 * (_means((forward + tiny).sqrt(), pred_offset) + _means((backward + tiny).sqrt(), offset))


def _mean(value: Float[Tensor, "b n"], counted: Bool[Tensor, " b"] | None) -> Float[Tensor, ""]:
    if counted is None:
        return value.mean()
    return (value.mean(1) * counted).sum() / counted.sum().clamp_min(1)


def _means(value: Float[Tensor, " p"], offset: Int[Tensor, " s"]) -> Float[Tensor, " s"]:
    sizes = offset.diff(prepend=offset.new_zeros(1))
    return value.new_zeros(len(offset)).index_add(0, clouds_of(offset, len(value)), value) / sizes
