"""Detection of objects in scenes: training of any detector, and which of its boxes count."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor, nn

from pointloom.ops import box_nms, count_points_in_boxes
from pointloom.structures import BoxPredictions, DetectionBatch, Detector, Losses, as_module
from pointloom.tasks.detection_scores import FoundBoxes, TrueBoxes

AnyBoxes = TypeVar("AnyBoxes", FoundBoxes, TrueBoxes)


@dataclass(frozen=True)
class KeepRules:
    """Which proposed boxes count; the numbers of VoteNet and 3DETR are 0.25, 0.05 and 5.

    Attributes:
        nms_iou: A box that overlaps a better one of its class by more is left out.
        min_objectness: A box must have more.
        min_points: A box must have as many of the scene's points inside.
    """

    nms_iou: float
    min_objectness: float
    min_points: int


@dataclass(frozen=True)
class MomentumSchedule:
    """VoteNet's schedule of batch normalisation: 0.5, halved again and again, at least 0.001.

    Attributes:
        start: Momentum of the first steps.
        factor: What it is multiplied with.
        every: Steps after which that happens.
        floor: Smallest momentum.
    """

    start: float
    factor: float
    every: int
    floor: float


class Detection(nn.Module):
    """Train a detector.

    Args:
        detector: What finds boxes.
        momentum: How the momentum of batch normalisation falls; None leaves it alone.
    """

    steps: Tensor

    def __init__(self, detector: Detector, *, momentum: MomentumSchedule | None) -> None:
        super().__init__()
        self.detector = detector
        self.momentum = momentum
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, batch: DetectionBatch) -> Losses:
        """Return the detector's losses."""
        if self.momentum is not None and self.training:
            self._set_momentum(self.momentum)
        return self.detector(batch)

    def after_step(self) -> None:
        """Count the steps, which the momentum follows."""
        self.steps += 1

    def _set_momentum(self, schedule: MomentumSchedule) -> None:
        value = max(schedule.start * schedule.factor ** (int(self.steps) // schedule.every), schedule.floor)
        for module in as_module(self.detector).modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = value


def kept_boxes(proposed: BoxPredictions, batch: DetectionBatch, rules: KeepRules) -> Bool[Tensor, "b q"]:
    """Return which boxes count: probable enough, not empty, and not suppressed within their most probable class."""
    candidate = proposed.objectness > rules.min_objectness
    candidate &= count_points_in_boxes(batch.coord, proposed.boxes) >= rules.min_points
    label = proposed.probability.argmax(-1)
    return box_nms(proposed.boxes, proposed.objectness, label, candidate, threshold=rules.nms_iou)


@torch.inference_mode()
def find_boxes(
    detector: Detector, batches: Iterable[DetectionBatch], *, rules: KeepRules, device: torch.device, precision: str
) -> tuple[FoundBoxes, TrueBoxes]:
    """Return the boxes that count and the true ones; scenes are numbered by their row in the store.

    Every box that is kept stands for every class, with the class's probability times its objectness as score.

    Args:
        detector: What finds boxes.
        batches: Scenes, without augmentation.
        rules: Which boxes count.
        device: Where to compute.
        precision: ``bf16`` or ``fp32``.
    """
    module = as_module(detector)
    was_training = module.training
    module.eval()
    found: list[FoundBoxes] = []
    truth: list[TrueBoxes] = []
    for given in batches:
        batch = given.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            proposed = detector.predict(batch)
        score = proposed.probability * proposed.objectness.unsqueeze(-1)
        keep, real = kept_boxes(proposed, batch, rules), batch.label >= 0
        row = batch.row.unsqueeze(1)
        found.append(FoundBoxes(*(_array(each[keep]) for each in (proposed.boxes, score, row.expand_as(keep)))))
        truth.append(TrueBoxes(*(_array(each[real]) for each in (batch.boxes, batch.label, row.expand_as(real)))))
    module.train(was_training)
    return _joined(FoundBoxes, found), _joined(TrueBoxes, truth)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()


def _joined(kind: type[AnyBoxes], parts: Sequence[AnyBoxes]) -> AnyBoxes:
    return kind(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})
