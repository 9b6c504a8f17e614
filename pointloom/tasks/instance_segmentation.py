"""Instances of a scene from per-point features: heads, grouping, and ScanNet's average precision (PointGroup)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.data.scene_transforms import voxel_keys
from pointloom.structures import Losses
from pointloom.tasks.scene_probing import fit_rows

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(9))
"""IoU thresholds of mAP: 0.50 to 0.90 (0.95 is not among them in ScanNet's evaluation either)."""


@dataclass(frozen=True)
class PointTargets:
    """What the heads learn.

    Attributes:
        feature: Frozen features of points.
        segment: Class, -1 where unknown or ignored.
        shift: From the point to the mean of its instance, metres.
        has_shift: Which points belong to an instance.
    """

    feature: Float[Tensor, "p c"]
    segment: Int[Tensor, " p"]
    shift: Float[Tensor, "p 3"]
    has_shift: Bool[Tensor, " p"]


@dataclass(frozen=True)
class Instances:
    """Instances of one scene.

    Attributes:
        number: Instance of every point, -1 where none.
        label: Class of every instance.
        score: Confidence of every instance; 1 for true ones.
    """

    number: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " i"]
    score: Float[np.ndarray, " i"]


@dataclass(frozen=True)
class Scored:
    """One scene to be scored.

    Attributes:
        predicted: What was found.
        true: What is there.
        void: Points without a label or of a class that is not scored (wall, floor).
    """

    predicted: Instances
    true: Instances
    void: Bool[np.ndarray, " n"]


def instance_targets(
    coord: Float[np.ndarray, "n 3"], instance: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Return the way from every point to the mean of its instance, and which points have one."""
    has = instance >= 0
    shift = np.zeros_like(coord, dtype=np.float32)
    if has.any():
        _, number = np.unique(instance[has], return_inverse=True)
        count = np.bincount(number)
        mean = np.stack([np.bincount(number, coord[has, axis]) / count for axis in range(3)], axis=1)
        shift[has] = mean[number] - coord[has]
    return shift, has


class InstanceHeads(nn.Module):
    """Class and shift of every point: a linear layer, and an MLP with one hidden layer (PointGroup on frozen features).

    Losses, all of weight 1: cross entropy, L1 of the shift (sum over axes, mean over points of instances), and one
    minus the cosine between predicted and true shift.

    Args:
        dim: Channels of the features.
        num_classes: Number of classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, *, num_classes: int) -> None:
        super().__init__()
        self.semantic = nn.Linear(dim, num_classes)
        self.shift = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, 3))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def standardise(self, mean: Float[Tensor, " c"], std: Float[Tensor, " c"]) -> None:
        """Take ``mean`` off all features from now on and divide by ``std``."""
        self.mean.copy_(mean)
        self.std.copy_(std + 1e-6)

    def predict(self, feature: Float[Tensor, "p c"]) -> tuple[Float[Tensor, "p k"], Float[Tensor, "p 3"]]:
        """Return class logits and the way to the instance's middle."""
        feature = (feature - self.mean) / self.std
        return self.semantic(feature), self.shift(feature).float()

    def forward(self, batch: PointTargets) -> Losses:
        """Return ``loss`` and its three parts."""
        logits, shift = self.predict(batch.feature)
        semantic = F.cross_entropy(logits, batch.segment, ignore_index=-1)
        weight = batch.has_shift.float() / batch.has_shift.sum().clamp(min=1)
        distance = ((shift - batch.shift).abs().sum(1) * weight).sum()
        direction = ((1 - F.cosine_similarity(shift, batch.shift, eps=1e-6)) * weight).sum()
        parts = {"semantic": semantic, "distance": distance, "direction": direction}
        return {"loss": semantic + distance + direction, **parts}


def fit_instance_heads(targets: PointTargets, *, num_classes: int, epochs: int, lr: float, seed: int) -> InstanceHeads:
    """Train the heads on cached features, standardised (batches of 4096 points, AdamW, one cycle)."""
    torch.manual_seed(seed)
    feature = targets.feature
    heads = InstanceHeads(feature.shape[1], num_classes=num_classes)
    heads.standardise(feature.mean(0), feature.std(0))
    columns = vars(targets)

    def loss(rows: Tensor) -> Tensor:
        return heads(PointTargets(**{name: value[rows] for name, value in columns.items()}))["loss"]

    fit_rows(heads, loss, num_rows=len(feature), epochs=epochs, lr=lr)
    return heads.eval()


def group_points_by_shift(
    coord: Float[np.ndarray, "n 3"],
    shift: Float[np.ndarray, "n 3"],
    probability: Float[np.ndarray, "n c"],
    *,
    ignored: Sequence[int],
    radius: float,
    smallest: int,
) -> Instances:
    """Move points to where they say that their instance's middle is, and join neighbours of the same class.

    Args:
        coord: Metres.
        shift: Predicted way to the middle.
        probability: Class probabilities.
        ignored: Classes without instances (wall, floor).
        radius: Points closer than this, after moving, are neighbours, metres.
        smallest: Instances with fewer points are dropped.

    Note:
        The official grouping follows at most 300 neighbours of a point, in one direction. Here points in one cell of
        an eighth of the radius are one, and of those all neighbours are followed: memory does not grow with the square
        of an instance, but two points more than half the radius apart may not find each other.
    """
    label = probability.argmax(1)
    kept = np.flatnonzero(~np.isin(label, list(ignored)))
    number = np.full(len(coord), -1, dtype=np.int64)
    labels: list[int] = []
    scores: list[float] = []
    for each in np.unique(label[kept]):
        rows = kept[label[kept] == each]
        component = _components(coord[rows] + shift[rows], radius)
        for found in np.flatnonzero(np.bincount(component) >= smallest):
            members = rows[component == found]
            number[members] = len(labels)
            labels.append(int(each))
            scores.append(float(probability[members, each].mean()))
    return Instances(number, np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64))


def _components(coord: Float[np.ndarray, "n 3"], radius: float) -> Int[np.ndarray, " n"]:
    """Return the number of the group of every point, whose neighbours are in the same one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    _, first, cell = np.unique(voxel_keys(coord.astype(np.float32), radius / 8), return_index=True, return_inverse=True)
    pairs = cKDTree(coord[first]).query_pairs(radius, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(len(first),) * 2)
    component: Int[np.ndarray, " n"] = connected_components(graph, directed=False)[1][cell]
    return component


def true_instances(segment: Int[np.ndarray, " n"], instance: Int[np.ndarray, " n"]) -> Instances:
    """Return the labelled instances of a scene; the class is that of most of the instance's points.

    Points of unlabelled instances count as unlabelled.
    """
    number = np.full(len(instance), -1, dtype=np.int64)
    labels: list[int] = []
    known = (instance >= 0) & (segment >= 0)
    for each in np.unique(instance[known]):
        members = (instance == each) & known
        number[members] = len(labels)
        labels.append(int(np.bincount(segment[members]).argmax()))
    return Instances(number, np.array(labels, dtype=np.int64), np.ones(len(labels)))


def average_precision(
    scenes: Sequence[Scored], *, classes: Sequence[int], threshold: float, min_points: int = 100
) -> Float[np.ndarray, " c"]:
    """Return ScanNet's average precision per class, NaN for a class without a true instance.

    A prediction matches a true instance of its class when their IoU exceeds the threshold; a second match is a false
    positive, at the lower score, but may match another instance too (below IoUs of 0.5, as in the official code). An
    unmatched prediction is left out when more than ``threshold`` of its points are void or belong to true instances
    that are too small; otherwise it is a false positive.

    Args:
        scenes: What was found and what is there.
        classes: Classes to score.
        threshold: IoU.
        min_points: Smaller true instances and predictions do not count.
    """
    return np.array([_class_precision(scenes, _Rule(each, threshold, min_points)) for each in classes])


@dataclass(frozen=True)
class _Rule:
    label: int
    threshold: float
    least: int


def _class_precision(scenes: Sequence[Scored], rule: _Rule) -> float:
    right: list[bool] = []
    scores: list[float] = []
    missed = num_true = 0
    for scene in scenes:
        hits, values, lost, count = _match(scene, rule)
        right += hits
        scores += values
        missed += lost
        num_true += count
    if num_true == 0:
        return float("nan")
    return _area(np.array(right, dtype=bool), np.array(scores), missed) if right else 0.0


def _match(scene: Scored, rule: _Rule) -> tuple[list[bool], list[float], int, int]:
    """Return hit or not and score of every counted prediction, missed and all true instances of one scene."""
    predicted, true = scene.predicted, scene.true
    p_size = np.bincount(predicted.number[predicted.number >= 0], minlength=len(predicted.label))
    t_size = np.bincount(true.number[true.number >= 0], minlength=len(true.label))
    mine = np.flatnonzero((predicted.label == rule.label) & (p_size >= rule.least))
    theirs = np.flatnonzero((true.label == rule.label) & (t_size >= rule.least))
    small = np.flatnonzero((true.label == rule.label) & (t_size < rule.least))
    shared = np.zeros((len(predicted.label), len(true.label)), dtype=np.int64)
    both = (predicted.number >= 0) & (true.number >= 0)
    np.add.at(shared, (predicted.number[both], true.number[both]), 1)
    void = np.bincount(predicted.number[(predicted.number >= 0) & scene.void], minlength=len(predicted.label))
    iou = shared / np.maximum(p_size[:, None] + t_size[None] - shared, 1)
    right: list[bool] = []
    scores: list[float] = []
    missed = 0
    taken = np.zeros(len(predicted.label), dtype=bool)
    for t in theirs:
        found = [p for p in mine if not taken[p] and iou[p, t] > rule.threshold]
        if not found:
            missed += 1
            continue
        taken[found[0]] = True  # the others may still match another one, as in the official code
        values = sorted((float(predicted.score[p]) for p in found), reverse=True)
        right += [True] + [False] * (len(values) - 1)
        scores += values
    for p in mine:
        if (iou[p, theirs] > rule.threshold).any():
            continue
        skipped = void[p] + shared[p, small].sum()
        if skipped / p_size[p] <= rule.threshold:
            right.append(False)
            scores.append(float(predicted.score[p]))
    return right, scores, missed, len(theirs)


def _area(right: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], missed: int) -> float:
    """Return the area under precision over recall, with steps half-way to both neighbours as ScanNet has them."""
    order = np.argsort(score, kind="stable")
    score, right = score[order], right[order]
    first = np.unique(score, return_index=True)[1]  # every score once: what is counted from there on
    hits = right[::-1].cumsum()[::-1][first]
    counted = (len(score) - np.arange(len(score)))[first]
    precision = np.append(hits / counted, 1.0)
    recall = np.append(hits / (right.sum() + missed), 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (0.5 * (around[:-2] - around[2:])))
