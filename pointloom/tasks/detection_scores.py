"""Average precision and recall of boxes as VoteNet and 3DETR compute them (their code, after PASCAL VOC)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.ops import box_iou

THRESHOLDS = (0.25, 0.5)
"""IoU that a box must exceed: AP25 and AP50."""


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes found in some scenes, one after the other; each stands for every class with another score.

    Attributes:
        boxes: (K, 7) centre, lengths, heading.
        score: (K, C) per class.
        scene: (K,) number of the scene.
    """

    boxes: NDArray[np.float32]
    score: NDArray[np.float32]
    scene: NDArray[np.int64]


@dataclass(frozen=True)
class TrueBoxes:
    """Boxes of the objects of the same scenes.

    Attributes:
        boxes: (G, 7) centre, lengths, heading.
        label: (G,) class.
        scene: (G,) number of the scene.
    """

    boxes: NDArray[np.float32]
    label: NDArray[np.int64]
    scene: NDArray[np.int64]


@dataclass(frozen=True)
class DetectionScores:
    """Scores at one threshold, in percent.

    Attributes:
        ap: (C,) average precision, NaN for a class without a true box.
        recall: (C,) share of the true boxes that were found by any box, NaN as for ``ap``.
        mean_ap: Mean over the classes that have true boxes.
        mean_recall: As ``mean_ap``.
    """

    ap: NDArray[np.float64]
    recall: NDArray[np.float64]
    mean_ap: float
    mean_recall: float


def detection_scores(found: FoundBoxes, truth: TrueBoxes, *, num_classes: int, threshold: float) -> DetectionScores:
    """Compare boxes with the true ones, class by class, over all scenes together.

    A box is right if of the true boxes of its class and scene the one that it overlaps most is overlapped by more than
    ``threshold`` (strictly) and no box of a higher score has it; a second one for the same object is wrong. Average
    precision is the area below the precision that falls only (all points, not eleven).

    Args:
        found: What a detector found.
        truth: What there is; a scene may have nothing.
        num_classes: Number of classes.
        threshold: IoU.

    Note:
        A box that is not finite overlaps nothing, and a score that is not a number comes last: both count as wrong, as
        NumPy has it in the official codes. A class that has true boxes therefore always has a finite score, so that
        3DETR's rule (not a number counts as 0) and VoteNet's lack of one agree. The scores of a class that was never
        found are 0, of a class without true boxes there are none; the official codes leave it out of the mean too.

    Raises:
        ValueError: There is no true box at all.
    """
    if len(truth.label) == 0:
        raise ValueError("there is not a single true box to compare with")
    overlap, partner = _best_matches(found, truth, num_classes)
    ap, recall = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    for label, number in zip(*np.unique(truth.label, return_counts=True), strict=True):
        order = np.argsort(-found.score[:, label], kind="stable")
        right = _right(overlap[order, label] > threshold, partner[order, label])
        ap[label], recall[label] = average_precision(right, int(number)), right.sum() / number
    present = np.isfinite(ap)
    return DetectionScores(
        ap=100 * ap,
        recall=100 * recall,
        mean_ap=100 * float(ap[present].mean()),
        mean_recall=100 * float(recall[present].mean()),
    )


def resampled_map(
    found: FoundBoxes,
    truth: TrueBoxes,
    *,
    scenes: NDArray[np.int64],
    weight: NDArray[np.float64],
    num_classes: int,
    threshold: float,
) -> NDArray[np.float64]:
    """Return the mean average precision of ``detection_scores`` as if scenes occurred several times or not at all.

    Args:
        found: As there.
        truth: As there.
        scenes: (R,) numbers of the scenes, in rising order.
        weight: (B, R) how often each of them occurs, in every one of B drawings.
        num_classes: As there.
        threshold: As there.

    Returns:
        (B,) percent; a drawing without any true box has 0.
    """
    overlap, partner = _best_matches(found, truth, num_classes)
    place, home = np.searchsorted(scenes, found.scene), np.searchsorted(scenes, truth.scene)
    ap = np.full((num_classes, len(weight)), np.nan)
    for label in np.unique(truth.label):
        order = np.argsort(-found.score[:, label], kind="stable")
        hits = np.flatnonzero(_right(overlap[order, label] > threshold, partner[order, label]))
        before = np.zeros((len(scenes), len(order)))
        before[place[order], np.arange(len(order))] = 1
        own = weight[:, place[order[hits]]]
        given = weight @ before.cumsum(axis=1)[:, hits]  # boxes up to and with each one that is right
        precision = own.cumsum(axis=1) / np.maximum(given, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        number = weight[:, home[truth.label == label]].sum(axis=1)
        area = (envelope * own).sum(axis=1)
        ap[label] = np.divide(area, number, out=np.full(len(weight), np.nan), where=number > 0)
    there = np.isfinite(ap)
    return 100 * np.where(there, ap, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def average_precision(right: NDArray[np.bool_], number: int) -> float:
    """Return the area below the precision-recall curve.

    Args:
        right: Which boxes are right, in the order of falling scores.
        number: True boxes.
    """
    true = np.cumsum(right)
    precision = true / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / number)  # recall rises by 1 / number at every box that is right


def _best_matches(
    found: FoundBoxes, truth: TrueBoxes, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return per box and class the highest overlap with a true box, -1 where there is none, and which one that is."""
    overlap = np.full((len(found.boxes), num_classes), -1.0)
    partner = np.zeros((len(found.boxes), num_classes), dtype=np.int64)
    for scene in np.unique(truth.scene):
        here, there = np.flatnonzero(found.scene == scene), np.flatnonzero(truth.scene == scene)
        first, second = (torch.from_numpy(b.astype(np.float64)) for b in (found.boxes[here], truth.boxes[there]))
        iou = np.nan_to_num(box_iou(first, second).numpy(), nan=-1.0)
        of_class = truth.label[there][:, None] == np.arange(num_classes)
        candidates = np.where(of_class, iou[:, :, None], -1.0)
        overlap[here], partner[here] = candidates.max(1), there[candidates.argmax(1)]
    return overlap, partner


def _right(hit: NDArray[np.bool_], partner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which boxes are the first to hit their partner."""
    places = np.flatnonzero(hit)
    right = np.zeros(len(hit), dtype=np.bool_)
    right[places[np.unique(partner[places], return_index=True)[1]]] = True
    return right
