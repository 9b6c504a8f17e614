"""Part segmentation of objects (ShapeNetPart): the part of every point, and the two mean IoUs of the field."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.data.part_clouds import PartBatch
from pointloom.models.part_segmentation import PointSegmenter
from pointloom.structures import Encoder, Losses


class PartSegmentation(nn.Module):
    """Label points with parts of all categories; the category of the cloud is told (Point-MAE, section 4.2).

    Args:
        encoder: An encoder that has a segmentation head; trained with it.
        parts: Number of parts per category; part ids count through all categories.

    Raises:
        ValueError: There is no segmentation head for this encoder.
    """

    def __init__(self, encoder: Encoder, *, parts: Sequence[int]) -> None:
        super().__init__()
        self.num_categories = len(parts)
        self.segmenter = PointSegmenter(encoder, num_parts=sum(parts), num_categories=len(parts))

    def forward(self, batch: PartBatch) -> Losses:
        """Return the cross-entropy over all points and, for the log, the share of right points in percent."""
        logits = self.predict(batch).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch.segment.flatten())
        return {"loss": loss, "train_oa": 100.0 * (logits.argmax(-1) == batch.segment).float().mean()}

    def predict(self, batch: PartBatch) -> Float[Tensor, "b n p"]:
        """Return logits over the parts of all categories."""
        category = F.one_hot(batch.label, self.num_categories).float()
        return self.segmenter(batch.coord, category)


@dataclass(frozen=True)
class PartScores:
    """How well shapes were cut into parts, in percent.

    Attributes:
        miou_instance: Mean over shapes.
        miou_class: Mean over the categories that occur of the mean over their shapes.
        oa: Share of right points.
        categories: Category -> mean over its shapes.
    """

    miou_instance: float
    miou_class: float
    oa: float
    categories: Mapping[int, float]


def part_ranges(parts: Sequence[int]) -> NDArray[np.int64]:
    """Return (categories, 2): the first part id of every category and the one after its last."""
    ends = np.cumsum(parts, dtype=np.int64)
    return np.stack([ends - np.asarray(parts, dtype=np.int64), ends], axis=1)


def restricted_prediction(
    logits: Float[np.ndarray, "t n p"], category: Int[np.ndarray, " t"], *, parts: Sequence[int]
) -> NDArray[np.int64]:
    """Return (t, n) the most likely part of every point among the parts of the shape's own category."""
    low, high = part_ranges(parts)[category].T
    ids = np.arange(logits.shape[-1])
    allowed = (ids >= low[:, None]) & (ids < high[:, None])
    return np.where(allowed[:, None], logits, -np.inf).argmax(-1)


def shape_iou(
    prediction: Int[np.ndarray, "t n"],
    segment: Int[np.ndarray, "t n"],
    category: Int[np.ndarray, " t"],
    *,
    parts: Sequence[int],
) -> NDArray[np.float64]:
    """Return (t,) the mean IoU, 0 to 1, over the parts of each shape's category.

    A part that a shape neither has nor was given counts as 1, as in the official code.

    Raises:
        ValueError: A true part is not one of its category's.
    """
    ranges = part_ranges(parts)[category]
    if ((segment < ranges[:, :1]) | (segment >= ranges[:, 1:])).any():
        raise ValueError("a point has a part that its category does not have")
    found = np.empty(len(category))
    for t, (low, high) in enumerate(ranges):
        scores = []
        for part in range(low, high):
            given, true = prediction[t] == part, segment[t] == part
            union = int((given | true).sum())
            scores.append(float((given & true).sum()) / union if union else 1.0)
        found[t] = np.mean(scores)
    return found


def part_scores(
    iou: Float[np.ndarray, " t"], right: Float[np.ndarray, " t"], category: Int[np.ndarray, " t"]
) -> PartScores:
    """Return the two means of the field.

    Args:
        iou: Mean IoU of every shape, 0 to 1.
        right: Share of right points of every shape, 0 to 1; shapes have the same number of points.
        category: Category of every shape.
    """
    per_category = {int(c): 100.0 * float(iou[category == c].mean()) for c in np.unique(category)}
    return PartScores(
        miou_instance=100.0 * float(iou.mean()),
        miou_class=float(np.mean(list(per_category.values()))),
        oa=100.0 * float(right.mean()),
        categories=per_category,
    )


@torch.inference_mode()
def evaluate_shapes(
    task: PartSegmentation,
    batches: Iterable[PartBatch],
    *,
    parts: Sequence[int],
    device: torch.device,
    precision: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (t,) the mean IoU and (t,) the share of right points of every shape, both 0 to 1."""
    was_training = task.training
    task.eval()
    iou, right = [], []
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = task.predict(batch.to(device)).float().cpu().numpy()
        category, segment = batch.label.numpy(), batch.segment.numpy()
        prediction = restricted_prediction(logits, category, parts=parts)
        iou.append(shape_iou(prediction, segment, category, parts=parts))
        right.append((prediction == segment).mean(1))
    task.train(was_training)
    return np.concatenate(iou), np.concatenate(right)
