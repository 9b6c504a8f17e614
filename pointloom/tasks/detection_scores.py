"""Average precision and recall of boxes as VoteNet and 3DETR compute them (their code, after PASCAL VOC)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
class MatchedBoxes:
    """What scores need to know of the boxes found in some scenes: ``pointloom.tasks.box_matches`` finds it.

    Attributes:
        score: (K, C) per class.
        scene: (K,) number of the scene.
        overlap: (K, C) highest IoU with a true box of the class in the scene, -1 where there is none.
        partner: (K, C) which of the true boxes that is.
    """

    score: NDArray[np.float32]
    scene: NDArray[np.int64]
    overlap: NDArray[np.float64]
    partner: NDArray[np.int64]


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


def detection_scores(found: MatchedBoxes, truth: TrueBoxes, *, threshold: float) -> DetectionScores:
    """Compare boxes with the true ones, class by class, over all scenes together.

    A box is right if of the true boxes of its class and scene the one that it overlaps most is overlapped by more than
    ``threshold`` (strictly) and no box of a higher score has it; a second one for the same object is wrong. Average
    precision is the area below the precision that falls only (all points, not eleven).

    Args:
        found: What a detector found, matched with ``truth``.
        truth: What there is; a scene may have nothing.
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
    num_classes = found.score.shape[1]
    ap, recall = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    for label, number in zip(*np.unique(truth.label, return_counts=True), strict=True):
        order = np.argsort(-found.score[:, label], kind="stable")
        right = _right(found.overlap[order, label] > threshold, found.partner[order, label])
        ap[label], recall[label] = average_precision(right, int(number)), right.sum() / number
    present = np.isfinite(ap)
    return DetectionScores(
        ap=100 * ap,
        recall=100 * recall,
        mean_ap=100 * float(ap[present].mean()),
        mean_recall=100 * float(recall[present].mean()),
    )


def resampled_map(
    found: MatchedBoxes,
    truth: TrueBoxes,
    *,
    scenes: NDArray[np.int64],
    weight: NDArray[np.float64],
    threshold: float,
) -> NDArray[np.float64]:
    """Return the mean average precision of ``detection_scores`` as if scenes occurred several times or not at all.

    Args:
        found: As there.
        truth: As there.
        scenes: (R,) numbers of the scenes, in rising order.
        weight: (B, R) how often each of them occurs, in every one of B drawings.
        threshold: As there.

    Returns:
        (B,) percent; a drawing without any true box has 0.
    """
    place, home = np.searchsorted(scenes, found.scene), np.searchsorted(scenes, truth.scene)
    ap = np.full((found.score.shape[1], len(weight)), np.nan)
    for label in np.unique(truth.label):
        order = np.argsort(-found.score[:, label], kind="stable")
        hits = np.flatnonzero(_right(found.overlap[order, label] > threshold, found.partner[order, label]))
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


def _right(hit: NDArray[np.bool_], partner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which boxes are the first to hit their partner."""
    places = np.flatnonzero(hit)
    right = np.zeros(len(hit), dtype=np.bool_)
    right[places[np.unique(partner[places], return_index=True)[1]]] = True
    return right
