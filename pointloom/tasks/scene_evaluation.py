"""A class for every point of a scan: one pass over thinned points, or full coverage with or without augmentation."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.scene_batches import pack
from pointloom.data.scene_transforms import ScenePoints, fragments, grid_sample, rotation
from pointloom.tasks.scene_segmentation import SceneSegmentation

Protocol = Literal["in_training", "precise"]
Tta = Literal["none", "scannet", "s3dis"]


@dataclass(frozen=True)
class View:
    """One changed copy of a scene.

    Attributes:
        degrees: Turn about the up axis, counter-clockwise seen from above.
        scale: Factor of all coordinates.
        flip: Mirror x and y.
    """

    degrees: float = 0.0
    scale: float = 1.0
    flip: bool = False


VIEWS: dict[Tta, tuple[View, ...]] = {
    "none": (View(),),
    "scannet": (
        *(View(degrees, scale) for scale in (1.0, 0.95, 1.05) for degrees in (0.0, 90.0, 180.0, 270.0)),
        View(flip=True),
    ),
    "s3dis": tuple(View(scale=scale, flip=flip) for flip in (False, True) for scale in (0.9, 0.95, 1.0, 1.05, 1.1)),
}
"""Copies of test-time augmentation, as many as Pointcept's configurations of these data sets have (13 and 10)."""


@dataclass(frozen=True)
class Evaluation:
    """How scans are labelled.

    Attributes:
        protocol: ``in_training``: one point per voxel, its class for all points of the voxel; ``precise``: parts that
            cover every point, soft-max outputs added up.
        tta: Copies of the scene for ``precise``.
        voxel_size: Edge in metres.
        device: Where the network runs.
        precision: ``bf16`` runs matrix products in bfloat16.
    """

    protocol: Protocol
    tta: Tta
    voxel_size: float
    device: torch.device
    precision: str


def label_scene(task: SceneSegmentation, points: ScenePoints, how: Evaluation) -> NDArray[np.int64]:
    """Return a class for every point; the task must be in evaluation mode."""
    if how.protocol == "in_training":
        chosen, inverse = grid_sample(points.coord, how.voxel_size, np.random.default_rng(0))
        kept: NDArray[np.int64] = _probabilities(task, points.take(chosen), how).argmax(1).cpu().numpy()
        return kept[inverse]
    total: Tensor | None = None
    for view in VIEWS[how.tta]:
        seen = changed(points, view)
        for part in fragments(seen.coord, how.voxel_size):
            found = _probabilities(task, seen.take(part), how)
            total = found.new_zeros(len(points.coord), found.shape[1]) if total is None else total
            total[torch.from_numpy(part).to(total.device)] += found
    assert total is not None
    labels: NDArray[np.int64] = total.argmax(1).cpu().numpy()
    return labels


def changed(points: ScenePoints, view: View) -> ScenePoints:
    """Return a copy of a scene as a view shows it."""
    turn = rotation(2, np.deg2rad(view.degrees)).astype(np.float32)
    mirror = np.array([-1, -1, 1] if view.flip else [1, 1, 1], dtype=np.float32)
    return replace(
        points,
        coord=points.coord @ turn.T * mirror * np.float32(view.scale),
        normal=points.normal @ turn.T * mirror,
    )


@torch.inference_mode()
def _probabilities(task: SceneSegmentation, points: ScenePoints, how: Evaluation) -> Tensor:
    batch = pack([points], [0]).to(how.device)
    with torch.autocast(how.device.type, torch.bfloat16, enabled=how.precision == "bf16"):
        logits = task.predict(batch)
    return logits.float().softmax(1)
