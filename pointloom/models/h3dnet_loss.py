"""The losses of H3DNet (weights and thresholds from the code)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pointloom.models.box_coding import HeadingBins, chosen
from pointloom.models.box_parts import PartTargets, edge_centers, face_centers, part_targets
from pointloom.models.proposals import Proposals
from pointloom.models.seeds import Seeds
from pointloom.models.votenet_loss import (
    FAR,
    NEAR,
    center_loss,
    cross_entropy,
    masked_mean,
    proposal_losses,
    squared_distances,
    vote_loss,
)
from pointloom.ops import gather_points, knn
from pointloom.structures import DetectionBatch, Losses

REACH = 0.3
"""Metres; a found part is that of a box if it is nearer to both the predicted and the true place (code)."""

_EMPTY = 1e-6
EXISTS_WEIGHT = (0.4, 0.6)
MATCH_WEIGHT = (0.3, 0.7)
OBJECTNESS_WEIGHT = (0.2, 0.8)


@dataclass(frozen=True)
class Parts:
    """Faces or edges, one per seed.

    Attributes:
        exists: Logits of nothing and something.
        vote: Where the seed votes for, metres.
        center: Where the part is, metres.
        size: Its size, metres.
        category: Logits of its object's class.
        feature: What the votes around say.
    """

    exists: Float[Tensor, "b t 2"]
    vote: Float[Tensor, "b t 3"]
    center: Float[Tensor, "b t 3"]
    size: Float[Tensor, "b t _"]
    category: Float[Tensor, "b t k"]
    feature: Float[Tensor, "b t c"]


@dataclass(frozen=True)
class Matches:
    """Faces and edges of the initial boxes, and whether the parts near them are theirs.

    Attributes:
        faces: Their middles, metres.
        edges: Their middles, metres.
        matched: Logits, faces first.
        same_class: Logits of the part also having the object's class.
    """

    faces: Float[Tensor, "b q 6 3"]
    edges: Float[Tensor, "b q 12 3"]
    matched: Float[Tensor, "b q 18 2"]
    same_class: Float[Tensor, "b q 18 2"]


@dataclass(frozen=True)
class Found:
    """Everything H3DNet says about scenes.

    Attributes:
        seeds: Where it looked from.
        votes: Where seeds vote for their objects, metres.
        parts: Per kind of part.
        initial: VoteNet's boxes.
        refined: The same boxes with other centres, remainders and objectness.
        matches: Which of the initial boxes' parts were found.
    """

    seeds: Seeds
    votes: Float[Tensor, "b t 3"]
    parts: dict[str, Parts]
    initial: Proposals
    refined: Proposals
    matches: Matches


def h3dnet_losses(found: Found, batch: DetectionBatch, mean_sizes: Float[Tensor, "k 3"]) -> Losses:
    """Return the loss and its parts."""
    of_parts = torch.stack([
        (2.0 if kind == "edge" else 1.0) * surface_loss(found.parts[kind], target)
        + 30 * existence_loss(found.parts[kind], target)
        + 10 * masked_mean((found.parts[kind].vote - target.center).abs().sum(-1), target.known)
        for kind, target in part_targets(found.seeds, batch).items()
    ]).sum()  # fmt: skip
    of_votes = vote_loss(found.seeds, found.votes, batch)
    first = proposal_losses(found.initial, batch, mean_sizes)
    objectness, potential = refinement_losses(found, batch, mean_sizes)
    of_boxes = of_votes + 0.5 * first["objectness"] + first["box"] + 0.1 * first["category"]
    loss = 10 * (of_boxes + 0.5 * objectness + potential) + of_parts
    return {
        "loss": loss, "vote": of_votes, "objectness": first["objectness"], "box": first["box"],
        "category": first["category"], "parts": of_parts, "refined_objectness": objectness, "potential": potential,
    }  # fmt: skip


def existence_loss(parts: Parts, target: PartTargets) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of belonging to a part; nothing counts 0.4, something 0.6."""
    weight = parts.exists.new_tensor(EXISTS_WEIGHT)
    entropy = F.cross_entropy(parts.exists.transpose(1, 2), target.known.long(), weight=weight, reduction="none")
    return entropy.mean()


def surface_loss(parts: Parts, target: PartTargets) -> Float[Tensor, ""]:
    """Return half the distances of middle and size (sums over axes) and the cross-entropy of the class."""
    center = (parts.center - target.center).abs().sum(-1)
    size = (parts.size - target.size).abs().sum(-1)
    return masked_mean(0.5 * (center + size) + cross_entropy(parts.category, target.label), target.known)


def refinement_losses(
    found: Found, batch: DetectionBatch, mean_sizes: Float[Tensor, "k 3"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return what is said about matches and objects, and how far the refined boxes are from the true ones."""
    refined, matches = found.refined, found.matches
    distance, nearest = squared_distances(refined.place, batch).min(-1)
    root = (distance + _EMPTY).sqrt()
    positive, counted = root < NEAR, (root < NEAR) | (root > FAR)
    boxes = gather_points(batch.boxes, nearest)
    label = batch.label.gather(1, nearest).clamp_min(0)
    true = torch.cat([face_centers(boxes), edge_centers(boxes)], dim=2)
    matched, same_class = match_labels(matches, found.parts, true, label)
    of_objects = weighted_entropy(refined.objectness, positive, OBJECTNESS_WEIGHT)
    everywhere = counted.unsqueeze(-1).expand_as(matched)
    objectness = (
        masked_mean(weighted_entropy(matches.matched, matched, MATCH_WEIGHT), everywhere)
        + masked_mean(weighted_entropy(matches.same_class, same_class, MATCH_WEIGHT), everywhere)
        + (masked_mean(of_objects, matched.any(-1)) + masked_mean(of_objects, counted)) / 2
    )
    predicted = refined.boxes(mean_sizes).boxes
    predicted = torch.cat([predicted[..., :6], predicted[..., 6:].detach()], dim=-1)
    places = torch.cat([face_centers(predicted), edge_centers(predicted)], dim=2)
    apart = ((places - true).square().sum(-1) + _EMPTY).sqrt()
    residual = boxes[..., 3:6] / mean_sizes[label] - 1
    of_size = F.huber_loss(chosen(refined.size_residual, label), residual, reduction="none").mean(-1)
    index, turn = HeadingBins(refined.heading.shape[-1]).encode(boxes[..., 6])
    of_turn = F.huber_loss(chosen(refined.heading_residual, index), turn, reduction="none")
    potential = (
        center_loss(refined.center, positive, batch)
        + masked_mean(apart, matched & positive.unsqueeze(-1))
        + masked_mean(of_size + (of_turn if refined.heading.shape[-1] > 1 else 0.0), positive)
    )
    return objectness, potential


@torch.no_grad()
def match_labels(
    matches: Matches, parts: dict[str, Parts], true: Float[Tensor, "b q 18 3"], label: Int[Tensor, "b q"]
) -> tuple[Bool[Tensor, "b q 18"], Bool[Tensor, "b q 18"]]:
    """Return which faces and edges of boxes have a found part, and which of these parts have the object's class.

    The part in question is the one nearest to the true place; it must be near the predicted place, too.
    """
    kinds = (("level", "upright"), ("edge",))
    matched, same_class = [], []
    for predicted, wanted, names in zip((matches.faces, matches.edges), true.split((6, 12), dim=2), kinds, strict=True):
        exists = torch.cat([parts[name].exists.argmax(-1) == 1 for name in names], dim=1)
        center = torch.cat([parts[name].center for name in names], dim=1)
        center = torch.where(exists.unsqueeze(-1), center, center + 100.0)
        category = torch.cat([parts[name].category.argmax(-1) for name in names], dim=1)
        index = knn(wanted.flatten(1, 2), center, 1).squeeze(-1)
        nearest = gather_points(center, index).unflatten(1, wanted.shape[1:3])
        near = ((nearest - wanted).norm(dim=-1) < REACH) & ((nearest - predicted).norm(dim=-1) < REACH)
        matched.append(near)
        same_class.append(near & (category.gather(1, index).unflatten(1, wanted.shape[1:3]) == label.unsqueeze(-1)))
    return torch.cat(matched, dim=2), torch.cat(same_class, dim=2)


def weighted_entropy(
    logits: Float[Tensor, "*batch 2"], label: Bool[Tensor, "*batch"], weight: tuple[float, float]
) -> Float[Tensor, "*batch"]:
    """Return the cross-entropy of nothing and something, times the weight of the right one."""
    values = logits.new_tensor(weight)
    entropy = F.cross_entropy(logits.flatten(0, -2), label.flatten().long(), weight=values, reduction="none")
    return entropy.view_as(label)
