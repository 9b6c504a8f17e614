"""Which true box every found box overlaps most."""

import numpy as np
import torch

from pointloom.ops import box_iou
from pointloom.tasks.detection_scores import FoundBoxes, MatchedBoxes, TrueBoxes


def match_boxes(found: FoundBoxes, truth: TrueBoxes) -> MatchedBoxes:
    """Match found boxes with the true boxes of their scene, for every class.

    Args:
        found: What a detector found.
        truth: What there is.

    Note:
        A box that is not finite overlaps nothing, as NumPy has it in the official codes.
    """
    num_classes = found.score.shape[1]
    overlap = np.full((len(found.boxes), num_classes), -1.0)
    partner = np.zeros((len(found.boxes), num_classes), dtype=np.int64)
    for scene in np.unique(truth.scene):
        here, there = np.flatnonzero(found.scene == scene), np.flatnonzero(truth.scene == scene)
        first, second = (torch.from_numpy(b.astype(np.float64)) for b in (found.boxes[here], truth.boxes[there]))
        iou = np.nan_to_num(box_iou(first, second).numpy(), nan=-1.0)
        of_class = truth.label[there][:, None] == np.arange(num_classes)
        candidates = np.where(of_class, iou[:, :, None], -1.0)
        overlap[here], partner[here] = candidates.max(1), there[candidates.argmax(1)]
    return MatchedBoxes(score=found.score, scene=found.scene, overlap=overlap, partner=partner)
