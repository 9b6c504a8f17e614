"""The losses of VoteNet (section 4.4; weights and thresholds from the code)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pointloom.models.box_coding import HeadingBins, chosen
from pointloom.models.proposals import Proposals
from pointloom.models.seeds import Seeds
from pointloom.ops import gather_points
from pointloom.structures import DetectionBatch, Losses

NEAR, FAR = 0.3, 0.6
"""Metres from the next object's centre: nearer is an object, farther is none, between nothing is learned."""

_PADDED = 1e6  # squared distance to boxes that are not there
_EMPTY = 1e-6
OBJECTNESS_WEIGHT = (0.2, 0.8)


def vote_loss(seeds: Seeds, votes: Float[Tensor, "b t 3"], batch: DetectionBatch) -> Float[Tensor, ""]:
    """Return the distance (sum over axes) of votes from the nearest of their objects' centres, over seeds on objects.

    Args:
        seeds: The seeds.
        votes: Where they vote for.
        batch: Has the true offsets of all points.
    """
    true = gather_points(batch.votes.flatten(2), seeds.index).unflatten(-1, (3, 3))
    distance = (votes.unsqueeze(2) - seeds.coord.unsqueeze(2) - true).abs().sum(-1).amin(-1)
    return masked_mean(distance, batch.on_object.gather(1, seeds.index))


def proposal_losses(proposals: Proposals, batch: DetectionBatch, mean_sizes: Float[Tensor, "k 3"]) -> Losses:
    """Return ``objectness``, ``box`` and ``category``, and the parts of ``box``.

    Note:
        The official code compares with padded boxes as well, which lie at the origin; here they are left out.
    """
    distance, nearest = squared_distances(proposals.place, batch).min(-1)
    root = (distance + _EMPTY).sqrt()
    positive, counted = root < NEAR, (root < NEAR) | (root > FAR)
    boxes = gather_points(batch.boxes, nearest)
    label = batch.label.gather(1, nearest).clamp_min(0)
    parts = {
        "center": center_loss(proposals.center, positive, batch),
        "heading": heading_loss(proposals, boxes[..., 6], positive),
        "size": size_loss(proposals, boxes[..., 3:6], label, mean_sizes, positive),
    }
    return {
        "objectness": masked_mean(_objectness_loss(proposals.objectness, positive), counted),
        "category": masked_mean(cross_entropy(proposals.category, label), positive),
        "box": parts["center"] + parts["heading"] + parts["size"],
        **parts,
    }


def squared_distances(coord: Float[Tensor, "b q 3"], batch: DetectionBatch) -> Float[Tensor, "b q m"]:
    """Return squared distances to the centres of all boxes, a large number for padded ones."""
    distance = (coord.unsqueeze(2) - batch.boxes[:, None, :, :3]).square().sum(-1)
    return distance.masked_fill((batch.label < 0).unsqueeze(1), _PADDED)


def center_loss(
    center: Float[Tensor, "b q 3"], positive: Bool[Tensor, "b q"], batch: DetectionBatch
) -> Float[Tensor, ""]:
    """Return the squared Chamfer distance between centres of positive boxes and those of true ones, both ways."""
    distance = squared_distances(center, batch)
    return masked_mean(distance.amin(2), positive) + masked_mean(distance.amin(1), batch.label >= 0)


def heading_loss(
    proposals: Proposals, heading: Float[Tensor, "b q"], positive: Bool[Tensor, "b q"]
) -> Float[Tensor, ""]:
    """Return a tenth of the cross-entropy of the heading's class, and the Huber loss of the rest."""
    index, residual = HeadingBins(proposals.heading.shape[-1]).encode(heading)
    huber = F.huber_loss(chosen(proposals.heading_residual, index), residual, reduction="none")
    return masked_mean(0.1 * cross_entropy(proposals.heading, index) + huber, positive)


def size_loss(
    proposals: Proposals,
    size: Float[Tensor, "b q 3"],
    label: Int[Tensor, "b q"],
    mean_sizes: Float[Tensor, "k 3"],
    positive: Bool[Tensor, "b q"],
) -> Float[Tensor, ""]:
    """Return a tenth of the cross-entropy of the size's class, and the Huber loss of the rest, in mean sizes."""
    residual = size / mean_sizes[label] - 1
    huber = F.huber_loss(chosen(proposals.size_residual, label), residual, reduction="none").mean(-1)
    return masked_mean(0.1 * cross_entropy(proposals.size, label) + huber, positive)


def cross_entropy(logits: Float[Tensor, "b q k"], label: Int[Tensor, "b q"]) -> Float[Tensor, "b q"]:
    """Return the cross-entropy of every box."""
    return F.cross_entropy(logits.transpose(1, 2), label, reduction="none")


def masked_mean(value: Float[Tensor, "*batch"], mask: Bool[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Return the mean where ``mask`` is true, 0 where that is nowhere."""
    return torch.where(mask, value, 0.0).sum() / (mask.sum() + _EMPTY)


def _objectness_loss(logits: Float[Tensor, "b q 2"], positive: Bool[Tensor, "b q"]) -> Float[Tensor, "b q"]:
    weight = logits.new_tensor(OBJECTNESS_WEIGHT)
    return F.cross_entropy(logits.transpose(1, 2), positive.long(), weight=weight, reduction="none")
