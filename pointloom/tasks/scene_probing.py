"""Protocols on frozen features of scenes: a linear layer on points, the nearest super-point (MSM, section 4)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

Metric = Literal["l2", "l1", "cosine"]
_BATCH = 4096
_MAX_CELLS = 2**25  # distances that are held at once


@dataclass(frozen=True)
class PointFeatures:
    """Frozen features of the points of a scene.

    Attributes:
        feature: One vector per point.
        label: Class, -1 where unknown or ignored.
        superpoint: Number of the point's super-point, 0 to their count - 1.
    """

    feature: Float[np.ndarray, "n d"]
    label: Int[np.ndarray, " n"]
    superpoint: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer for features as they are.

    Attributes:
        weight: A row per class.
        bias: A number per class.
    """

    weight: Float[np.ndarray, "c d"]
    bias: Float[np.ndarray, " c"]

    def classify(self, feature: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
        """Return the class of every point."""
        found: Int[np.ndarray, " n"] = (feature @ self.weight.T + self.bias).argmax(1)
        return found


def fit_linear_probe(train: PointFeatures, *, num_classes: int, epochs: int, lr: float, seed: int) -> LinearProbe:
    """Train one linear layer on standardised features (AdamW, one cycle).

    Note:
        The papers train the layer on augmented scenes for 800 epochs and more. Here the features are computed once,
        without augmentation.

    Raises:
        ValueError: No training point has a label.
    """
    known = np.flatnonzero(train.label >= 0)
    if not len(known):
        raise ValueError("no training point has a label")
    torch.manual_seed(seed)
    rows = train.feature[known]
    mean, std = rows.mean(0), rows.std(0) + 1e-6
    rows -= mean
    rows /= std  # in place: there may be gigabytes of them
    feature = torch.from_numpy(rows.astype(np.float32, copy=False))
    label = torch.from_numpy(train.label[known].astype(np.int64))
    layer = torch.nn.Linear(feature.shape[1], num_classes)
    fit_rows(
        layer, lambda rows: F.cross_entropy(layer(feature[rows]), label[rows]), num_rows=len(label), epochs=epochs,
        lr=lr,
    )  # fmt: skip
    weight = layer.weight.detach().numpy() / std
    return LinearProbe(weight, layer.bias.detach().numpy() - weight @ mean)


def fit_rows(
    head: torch.nn.Module,
    loss: Callable[[Int[torch.Tensor, " b"]], Float[torch.Tensor, ""]],
    *,
    num_rows: int,
    epochs: int,
    lr: float,
) -> None:
    """Train a head on rows of cached features: batches of 4096, AdamW, one cycle.

    Args:
        head: What is trained.
        loss: From the rows of a batch to their loss.
        num_rows: How many there are, at least 1.
        epochs: Passes over all rows.
        lr: Largest learning rate.
    """
    size = min(_BATCH, num_rows)
    optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.02)
    steps = epochs * (num_rows // size)
    rise = 0.05 if steps != 20 else 0.1  # torch divides by the number of steps of the rise less one
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)
    for _ in range(epochs):
        order = torch.randperm(num_rows)
        for start in range(0, num_rows - size + 1, size):
            optimizer.zero_grad()
            loss(order[start : start + size]).backward()
            optimizer.step()
            schedule.step()


@dataclass(frozen=True)
class NearestProbe:
    """Labelled super-points to compare with, scene by scene: probes that share scenes share their memory.

    Attributes:
        means: Mean feature of every labelled super-point, an array per scene.
        labels: Its class, likewise.
    """

    means: list[Float[np.ndarray, "_ d"]]
    labels: list[Int[np.ndarray, " _"]]

    def classify(self, points: PointFeatures, *, metric: Metric) -> Int[np.ndarray, " n"]:
        """Give every point the class of the labelled super-point that is nearest to its own one."""
        query = torch.from_numpy(superpoint_means(points))
        found = np.full(len(query), self.labels[0][0])
        least = torch.full((len(query),), torch.inf)
        for mean, label in zip(self.means, self.labels, strict=True):
            row, distance = nearest_rows(query, torch.from_numpy(mean), metric=metric)
            nearer = (distance < least).numpy()
            found[nearer] = label[row.numpy()[nearer]]
            least = torch.minimum(least, distance)
        classes: Int[np.ndarray, " n"] = found[points.superpoint]
        return classes


def gather_superpoints(scenes: Iterable[PointFeatures], *, num_classes: int) -> NearestProbe:
    """Collect the labelled super-points of training scenes.

    A super-point is the mean of its points' features; its class is the most frequent one of its labelled points.

    Raises:
        ValueError: No super-point has a label.
    """
    found = [labelled_superpoints(scene, superpoint_means(scene), num_classes=num_classes) for scene in scenes]
    return join_superpoints(found)


def labelled_superpoints(
    scene: PointFeatures, mean: Float[np.ndarray, "s d"], *, num_classes: int
) -> tuple[Float[np.ndarray, "_ d"], Int[np.ndarray, " _"]]:
    """Return the mean features of the super-points that have a class, and their classes; none is a copy of all."""
    label = superpoint_labels(scene, num_classes=num_classes)
    known = label >= 0
    return (mean, label) if known.all() else (mean[known], label[known])


def join_superpoints(scenes: Sequence[tuple[Float[np.ndarray, "_ d"], Int[np.ndarray, " _"]]]) -> NearestProbe:
    """Return a probe of the labelled super-points of some scenes, without copies.

    Raises:
        ValueError: No super-point has a label.
    """
    kept = [(mean, label) for mean, label in scenes if len(label)]
    if not kept:
        raise ValueError("no training super-point has a label")
    return NearestProbe([mean for mean, _ in kept], [label for _, label in kept])


def superpoint_means(points: PointFeatures) -> Float[np.ndarray, "s d"]:
    """Return the mean feature of every super-point."""
    number = torch.from_numpy(points.superpoint.astype(np.int64))
    feature = torch.from_numpy(np.asarray(points.feature, dtype=np.float32))
    count = torch.bincount(number).clamp(min=1).unsqueeze(1)
    total = torch.zeros(len(count), feature.shape[1]).index_add_(0, number, feature)
    means: Float[np.ndarray, "s d"] = (total / count).numpy()
    return means


def superpoint_labels(points: PointFeatures, *, num_classes: int) -> Int[np.ndarray, " s"]:
    """Return the most frequent class of every super-point, -1 where no point has one; ties go to the lower class."""
    known = points.label >= 0
    cell = points.superpoint[known].astype(np.int64) * num_classes + points.label[known]
    cell, votes = np.unique(cell, return_counts=True)
    owner = cell // num_classes
    last = np.lexsort((-cell, votes, owner))  # of each super-point the most votes come last, of those the lowest class
    label: Int[np.ndarray, " s"] = np.full(int(points.superpoint.max()) + 1, -1)
    label[owner[last]] = (cell % num_classes)[last]
    return label


def nearest_rows(
    query: Float[torch.Tensor, "q d"], gallery: Float[torch.Tensor, "g d"], *, metric: Metric
) -> tuple[Int[torch.Tensor, " q"], Float[torch.Tensor, " q"]]:
    """Return the row of ``gallery`` nearest to every query, and its distance, in blocks of bounded memory."""
    if metric == "cosine":
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    norm = 1.0 if metric == "l1" else 2.0
    rows = max(1, _MAX_CELLS // max(len(gallery), 1))
    found = [torch.cdist(part, gallery, p=norm).min(1) for part in query.split(rows)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])
