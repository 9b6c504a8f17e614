"""Semantic segmentation of whole scenes with a scene encoder: head, loss and the numbers of the field."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops.lovasz import lovasz_softmax
from pointloom.structures import Losses, SceneBatch, SceneEncoder, as_module

Features = Literal["finest", "all"]
HeadKind = Literal["mlp", "linear"]


class SceneSegmentation(nn.Module):
    """Label the points of scenes.

    Args:
        encoder: Pre-trained or fresh.
        num_classes: Number of classes.
        class_weight: (c,) weight of every class in the cross-entropy; None weighs all alike.
        freeze_encoder: Train the head alone; the encoder then always evaluates, its batch statistics stay as they are.
        features: What the head reads: the ``finest`` level (Point Transformer) or ``all`` of them side by side.
        head: ``mlp``: linear, batch norm, ReLU, linear, as wide as the finest level (Point Transformer); ``linear``:
            one layer.
        lovasz_weight: Of the Lovász loss beside the cross-entropy; 0 leaves it out, as the papers do.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        encoder: SceneEncoder,
        *,
        num_classes: int,
        class_weight: Float[Tensor, " c"] | None,
        freeze_encoder: bool,
        features: Features,
        head: HeadKind,
        lovasz_weight: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = features
        self.frozen = freeze_encoder
        self.lovasz_weight = lovasz_weight
        self.register_buffer("class_weight", class_weight)
        given, hidden = sum(encoder.dims) if features == "all" else encoder.dims[0], encoder.dims[0]
        wide = [nn.Linear(given, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)] if head == "mlp" else []
        self.head = nn.Sequential(*wide, nn.Linear(hidden if wide else given, num_classes))
        if freeze_encoder:
            as_module(encoder).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "SceneSegmentation":
        """Set the mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            as_module(self.encoder).eval()
        return self

    def forward(self, scenes: SceneBatch) -> Losses:
        """Return the loss over labelled points and, for the log, the share of right ones in percent."""
        logits = self.predict(scenes).float()
        known = scenes.segment >= 0
        logits, label = logits[known], scenes.segment[known].long()
        weight = self.class_weight
        total = label.new_tensor(len(label)) if weight is None else weight[label].sum()
        loss = F.cross_entropy(logits, label, weight=weight, reduction="sum") / total.clamp_min(1e-6)
        if self.lovasz_weight > 0:
            loss = loss + self.lovasz_weight * lovasz_softmax(logits.softmax(1), label)
        right = (logits.argmax(1) == label).float().sum()
        return {"loss": loss, "train_oa": 100.0 * right / max(len(label), 1)}

    def predict(self, scenes: SceneBatch) -> Float[Tensor, "p c"]:
        """Return logits."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            feature = self._features(scenes)
        return self.head(feature)

    def _features(self, scenes: SceneBatch) -> Float[Tensor, "p d"]:
        levels = self.encoder(scenes)
        finest = levels[0]
        if self.features == "all":
            return self.encoder.spread(levels, scenes.coord, scenes.offset)
        if finest.coord.shape == scenes.coord.shape and torch.equal(finest.coord, scenes.coord):
            return finest.feature
        return self.encoder.spread(levels[:1], scenes.coord, scenes.offset)


@dataclass(frozen=True)
class SceneScores:
    """How well points were classified, in percent.

    Attributes:
        miou: Mean IoU over all classes; one that neither occurs nor was predicted counts 0, as in the field's code.
        miou_present: Mean IoU over the classes that occur.
        macc: Mean accuracy over all classes, 0 for one that does not occur.
        oa: Share of right points.
        iou: (c,) per class, NaN for one that does not occur.
    """

    miou: float
    miou_present: float
    macc: float
    oa: float
    iou: NDArray[np.float64]


def scene_scores(confusion: Int[np.ndarray, "c c"]) -> SceneScores:
    """Return the numbers of the field from counts pooled over all scenes.

    Args:
        confusion: Labelled points per true class (rows) and predicted class.

    Raises:
        ValueError: There is no point.
    """
    if confusion.sum() == 0:
        raise ValueError("there is no labelled point to score")
    right, true, given = np.diag(confusion).astype(np.float64), confusion.sum(1), confusion.sum(0)
    iou = right / (true + given - right + 1e-10)
    return SceneScores(
        miou=100.0 * float(iou.mean()),
        miou_present=100.0 * float(iou[true > 0].mean()),
        macc=100.0 * float((right / (true + 1e-10)).mean()),
        oa=100.0 * float(right.sum() / confusion.sum()),
        iou=100.0 * np.where(true > 0, iou, np.nan),
    )


def count_confusion(
    label: Int[np.ndarray, " n"], prediction: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Return points per true class (rows) and predicted class; points labelled -1 do not count."""
    known = label >= 0
    cells = label[known].astype(np.int64) * num_classes + prediction[known]
    counts: NDArray[np.int64] = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)
