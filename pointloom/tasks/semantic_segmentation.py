"""Semantic segmentation of rooms with an object encoder (S3DIS): classes of points in blocks, pooled counts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.part_segmentation import PointSegmenter
from pointloom.structures import Encoder, Losses, as_module
from pointloom.tasks.room_blocks import BlockBatch


class SemanticSegmentation(nn.Module):
    """Label the points of blocks; nothing is told about the block (ACT and Point-PQAE, code).

    Args:
        encoder: An encoder that has a segmentation head.
        num_classes: Number of classes.
        class_weight: (c,) weight of every class in the loss; None weighs all alike.
        freeze_encoder: Train the head alone; as in the official code, batch statistics of the encoder still drift.

    Raises:
        ValueError: There is no segmentation head for this encoder.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        class_weight: Float[Tensor, " c"] | None,
        freeze_encoder: bool,
    ) -> None:
        super().__init__()
        self.segmenter = PointSegmenter(encoder, num_parts=num_classes, num_categories=0)
        self.register_buffer("class_weight", class_weight)
        if freeze_encoder:
            as_module(encoder).requires_grad_(False)

    def forward(self, batch: BlockBatch) -> Losses:
        """Return the weighted cross-entropy over all points and, for the log, the share of right points in percent."""
        logits = self.predict(batch).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch.segment.flatten(), weight=self.class_weight)
        return {"loss": loss, "train_oa": 100.0 * (logits.argmax(-1) == batch.segment).float().mean()}

    def predict(self, batch: BlockBatch) -> Float[Tensor, "b n c"]:
        """Return logits."""
        return self.segmenter(batch.coord, None)


@dataclass(frozen=True)
class SemanticScores:
    """How well points were classified, in percent.

    Attributes:
        miou: Mean IoU over the classes that occur or were predicted.
        macc: Mean accuracy over the classes that occur.
        oa: Share of right points.
        iou: (c,) per class, NaN for a class that neither occurs nor was predicted.
    """

    miou: float
    macc: float
    oa: float
    iou: NDArray[np.float64]


def semantic_scores(confusion: Int[np.ndarray, "c c"]) -> SemanticScores:
    """Return the three numbers of the field from counts pooled over all blocks.

    Args:
        confusion: Points per true class (rows) and predicted class.

    Note:
        The official code counts a class that neither occurs nor is predicted as 0, here it is left out. Area 5 of
        S3DIS has all 13 classes, so that nothing changes there.

    Raises:
        ValueError: There is no point.
    """
    if confusion.sum() == 0:
        raise ValueError("there is no point to score")
    right, true, given = np.diag(confusion).astype(np.float64), confusion.sum(1), confusion.sum(0)
    union = true + given - right
    iou = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
    recall = right[true > 0] / true[true > 0]
    return SemanticScores(
        miou=100.0 * float(np.nanmean(iou)),
        macc=100.0 * float(recall.mean()),
        oa=100.0 * float(right.sum() / confusion.sum()),
        iou=100.0 * iou,
    )


@torch.inference_mode()
def confusion_counts(
    task: SemanticSegmentation,
    batches: Iterable[BlockBatch],
    *,
    num_classes: int,
    device: torch.device,
    precision: str,
) -> NDArray[np.int64]:
    """Return (c, c) points per true class (rows) and predicted class over all batches."""
    was_training = task.training
    task.eval()
    counts = np.zeros(num_classes**2, dtype=np.int64)
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            prediction = task.predict(batch.to(device)).argmax(-1).cpu().numpy()
        cells = batch.segment.numpy() * num_classes + prediction
        counts += np.bincount(cells.ravel(), minlength=num_classes**2)
    task.train(was_training)
    return counts.reshape(num_classes, num_classes)
