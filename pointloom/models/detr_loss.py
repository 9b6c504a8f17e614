"""Set loss of 3DETR (section 3.4 and code): every true box is matched with one query, the others learn nothing."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from pointloom.models.box_coding import HeadingBins, chosen
from pointloom.ops import generalized_box_iou
from pointloom.ops.gather import num_processes, sum_over_processes
from pointloom.structures import DetectionBatch, Losses

SMALLEST_EXTENT = 0.1
"""Metres; a scene counts as at least this long along every axis."""


@dataclass(frozen=True)
class SceneBounds:
    """Where a scene's points are.

    Attributes:
        low: Lowest coordinates, metres.
        extent: Lengths, metres.
    """

    low: Float[Tensor, "b 3"]
    extent: Float[Tensor, "b 3"]

    @staticmethod
    def around(coord: Float[Tensor, "b n 3"]) -> "SceneBounds":
        """Return the bounds of points."""
        low = coord.amin(1)
        return SceneBounds(low=low, extent=(coord.amax(1) - low).clamp_min(SMALLEST_EXTENT))

    def relative(self, coord: Float[Tensor, "*layers b t 3"]) -> Float[Tensor, "*layers b t 3"]:
        """Return coordinates in [0, 1] inside the bounds."""
        return (coord - self.low.unsqueeze(1)) / self.extent.unsqueeze(1)


@dataclass(frozen=True)
class DetrBoxes:
    """Boxes of every layer of the decoder.

    Attributes:
        category: Logits of the classes and, last, of nothing.
        boxes: Centre, lengths, heading.
        heading: Logits of the heading's part of the circle.
        heading_residual: Per part, 1 = half a part.
    """

    category: Float[Tensor, "l b q k"]
    boxes: Float[Tensor, "l b q 7"]
    heading: Float[Tensor, "l b q h"]
    heading_residual: Float[Tensor, "l b q h"]


@dataclass(frozen=True)
class DetrWeights:
    """How much everything counts: the first four when matching, the others in the loss.

    Attributes:
        nothing: Weight of the class that stands for nothing, against 1 of every other.
    """

    match_category: float
    match_giou: float
    match_center: float
    match_objectness: float
    category: float
    nothing: float
    center: float
    size: float
    giou: float
    heading: float
    heading_residual: float


AXIS_ALIGNED = DetrWeights(
    match_category=1.0, match_giou=2.0, match_center=0.0, match_objectness=0.0, category=1.0, nothing=0.25, center=5.0,
    size=1.0, giou=1.0, heading=0.1, heading_residual=0.5,
)  # fmt: skip
"""ScanNet's."""

ORIENTED = DetrWeights(
    match_category=1.0, match_giou=3.0, match_center=5.0, match_objectness=5.0, category=1.0, nothing=0.1, center=5.0,
    size=1.0, giou=0.0, heading=0.1, heading_residual=0.5,
)  # fmt: skip
"""SUN RGB-D's, without the gradient of GIoU, which oriented boxes do not have here; 3DETR-m has ``category`` 0.8."""


def detr_losses(found: DetrBoxes, batch: DetectionBatch, bounds: SceneBounds, weights: DetrWeights) -> Losses:
    """Return the loss, and its weighted parts for the last layer."""
    giou = generalized_box_iou(found.boxes, batch.boxes.expand(len(found.boxes), -1, -1, -1),
                               oriented=found.heading.shape[-1] > 1)  # fmt: skip
    distance = _center_distance(found, batch, bounds)
    truth = match(matching_cost(found, batch, giou, distance, weights), batch.label)
    matched, nearest = truth >= 0, truth.clamp_min(0)
    count = _number_of_boxes(batch)
    boxes = batch.boxes.expand(len(truth), -1, -1, -1).gather(2, nearest.unsqueeze(-1).expand(-1, -1, -1, 7))

    def per_box(value: Float[Tensor, "l b q"]) -> Float[Tensor, " l"]:
        return torch.where(matched, value, 0.0).sum((1, 2)) / count

    heading, residual = HeadingBins(found.heading.shape[-1]).encode(boxes[..., 6])
    of_heading = F.cross_entropy(found.heading.movedim(-1, 1), heading, reduction="none")
    of_residual = F.huber_loss(chosen(found.heading_residual, heading), residual, reduction="none")
    extent = bounds.extent.unsqueeze(1)
    parts = {
        "category": weights.category * _category_loss(found.category, truth, batch.label, weights.nothing),
        "center": weights.center * per_box(chosen(distance, nearest)),
        "size": weights.size * per_box(((found.boxes[..., 3:6] - boxes[..., 3:6]) / extent).abs().sum(-1)),
        "giou": weights.giou * per_box(1 - chosen(giou, nearest)),
        "heading": per_box(weights.heading * of_heading + weights.heading_residual * of_residual),
    }
    total = torch.stack(list(parts.values())).sum()
    return {"loss": total, **{name: value[-1] for name, value in parts.items()}}


def matching_cost(
    found: DetrBoxes,
    batch: DetectionBatch,
    giou: Float[Tensor, "l b q m"],
    distance: Float[Tensor, "l b q m"],
    weights: DetrWeights,
) -> Float[Tensor, "l b q m"]:
    """Return how badly every query fits every box."""
    probability = found.category.softmax(-1)
    label = batch.label.clamp_min(0)[None, :, None].expand_as(giou)
    return (
        -weights.match_category * probability.gather(3, label)
        - weights.match_giou * giou
        + weights.match_center * distance
        + weights.match_objectness * probability[..., -1:]
    )


def match(cost: Float[Tensor, "l b q m"], label: Int[Tensor, "b m"]) -> Int[Tensor, "l b q"]:
    """Return the box of every query so that the sum of costs is least, -1 for queries without one.

    Args:
        cost: Of every pair; what is not finite counts as 0, so that the loss and not the matching reports it.
        label: -1 for padded boxes, which stand behind the others and match nothing.
    """
    numbers = (label >= 0).sum(1).tolist()
    costs = torch.nan_to_num(cost.detach().float()).cpu().numpy()
    truth = torch.full(cost.shape[:3], -1, dtype=torch.long)
    for layer, of_layer in enumerate(costs):
        for scene, number in enumerate(numbers):
            rows, columns = linear_sum_assignment(of_layer[scene, :, :number])
            truth[layer, scene, torch.from_numpy(rows)] = torch.from_numpy(columns)
    return truth.to(cost.device)


def _center_distance(found: DetrBoxes, batch: DetectionBatch, bounds: SceneBounds) -> Float[Tensor, "l b q m"]:
    """Return distances of centres, summed over axes, relative to the scene."""
    query, box = bounds.relative(found.boxes[..., :3]), bounds.relative(batch.boxes[..., :3])
    return (query.unsqueeze(3) - box.unsqueeze(1)).abs().sum(-1)


def _category_loss(
    logits: Float[Tensor, "l b q k"], truth: Int[Tensor, "l b q"], label: Int[Tensor, "b m"], nothing: float
) -> Float[Tensor, " l"]:
    """Return the cross-entropy per layer, a mean that is weighted by class."""
    K = logits.shape[-1]
    label = label.expand(len(truth), -1, -1).gather(2, truth.clamp_min(0))
    label = torch.where(truth >= 0, label, K - 1)
    weight = torch.where(label == K - 1, nothing, 1.0)
    entropy = F.cross_entropy(logits.movedim(-1, 1), label, reduction="none")
    return (weight * entropy).sum((1, 2)) / weight.sum((1, 2))


def _number_of_boxes(batch: DetectionBatch) -> Float[Tensor, ""]:
    """Return the number of true boxes per process, at least 1."""
    number = sum_over_processes((batch.label >= 0).sum().float())
    return (number / num_processes()).clamp_min(1)
