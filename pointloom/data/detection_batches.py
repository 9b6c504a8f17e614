"""Batches for detectors: scenes with equally many points and padded boxes, a function of seed, epoch and step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.box_transforms import BoxedPoints, Cuboid, crop, flip, scale, turn, upright, votes
from pointloom.data.scene_batches import scene_points
from pointloom.data.scene_loading import SceneSource, ShuffledScenes
from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.errors import DataError
from pointloom.structures import DetectionBatch

FLOOR_PERCENTILE = 0.99
"""The floor is the 0.99-th percentile of z (VoteNet, code): almost the minimum, not the 99-th percentile."""


@dataclass(frozen=True)
class DetectionSampling:
    """Which points a detector sees and how scenes are changed while training.

    Attributes:
        num_points: Points per scene; drawn twice where a scene has fewer.
        oriented: Whether boxes keep their heading; else they become axis-aligned, also after a turn.
        flip_x: Mirror half of the scenes in x.
        flip_y: Mirror half of the scenes in y.
        rotate_degrees: Largest turn about the up axis.
        scale: Range of the factor, the same for all axes.
        cuboid: Random crops; None leaves scenes whole.
    """

    num_points: int
    oriented: bool
    flip_x: bool = False
    flip_y: bool = False
    rotate_degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    cuboid: Cuboid | None = None


class DetectionLoader(ShuffledScenes[DetectionBatch]):
    """Some rows of a store, in shuffled batches for training or in order for evaluation."""

    def __init__(
        self, store: SceneSource, rows: NDArray[np.int64], *, sampling: DetectionSampling, batch_size: int, seed: int
    ) -> None:
        super().__init__(store, rows, batch_size=batch_size, seed=seed)
        self.sampling = sampling

    def draw(self, draw: int) -> Iterator[DetectionBatch]:
        """Yield all scenes in order, whole and unchanged, with random points; ``draw`` numbers the choice."""
        for start in range(0, len(self.rows), self.batch_size):
            chosen = self.rows[start : start + self.batch_size].tolist()
            yield collate([self._test(row, np.random.default_rng([self.seed, draw, row, 1])) for row in chosen], chosen)

    def _training_batch(self, rows: list[int], rngs: list[np.random.Generator]) -> DetectionBatch:
        return collate([self._train(row, rng) for row, rng in zip(rows, rngs, strict=True)], rows)

    def _train(self, row: int, rng: np.random.Generator) -> BoxedPoints:
        sampling = self.sampling
        points = boxed_points(self.store, row)
        if sampling.cuboid is not None:
            points = crop(points, sampling.cuboid, rng)
        points = sample(points, sampling.num_points, rng)
        for axis, wanted in enumerate((sampling.flip_x, sampling.flip_y)):
            if wanted and rng.random() < 0.5:
                points = flip(points, axis)
        limit = np.deg2rad(sampling.rotate_degrees)
        points = scale(turn(points, rng.uniform(-limit, limit)), rng.uniform(*sampling.scale))
        return self._headed(points)

    def _test(self, row: int, rng: np.random.Generator) -> BoxedPoints:
        return self._headed(sample(boxed_points(self.store, row), self.sampling.num_points, rng))

    def _headed(self, points: BoxedPoints) -> BoxedPoints:
        return points if self.sampling.oriented else replace(points, boxes=upright(points.boxes))


def boxed_points(store: SceneSource, row: int) -> BoxedPoints:
    """Read one scene, xy centred and z from 0.

    Raises:
        DataError: The scene has no boxes (a scene with zero boxes has).
    """
    scene, boxes = _boxed_scene(store, row)
    points = scene_points(scene)
    place = _rows(boxes)
    place[:, :3] += points.coord[0] - scene.coord[0]
    z = points.coord[:, 2]
    return BoxedPoints(
        coord=points.coord,
        color=points.color,
        normal=points.normal,
        height=z - np.float32(np.percentile(z, FLOOR_PERCENTILE)),
        instance=points.instance,
        boxes=place,
        label=boxes.label,
        box_instance=boxes.instance,
    )


def sample(points: BoxedPoints, number: int, rng: np.random.Generator) -> BoxedPoints:
    """Draw ``number`` points, some repeatedly where a scene has fewer."""
    return points.take(rng.choice(len(points.coord), number, replace=len(points.coord) < number))


def collate(scenes: Sequence[BoxedPoints], rows: Sequence[int]) -> DetectionBatch:
    """Put scenes on top of each other; the longest list of boxes, or one box, says how far the others are padded."""
    most = max(1, *(len(scene.label) for scene in scenes))
    boxes = np.zeros((len(scenes), most, 7), dtype=np.float32)
    label = np.full((len(scenes), most), -1, dtype=np.int64)
    for i, scene in enumerate(scenes):
        boxes[i, : len(scene.label)], label[i, : len(scene.label)] = scene.boxes, scene.label
    offsets, on_object = zip(*(votes(scene) for scene in scenes), strict=True)
    return DetectionBatch(
        coord=_stacked([scene.coord for scene in scenes]),
        color=_stacked([scene.color for scene in scenes]),
        normal=_stacked([scene.normal for scene in scenes]),
        height=_stacked([scene.height for scene in scenes]),
        boxes=torch.from_numpy(boxes),
        label=torch.from_numpy(label),
        votes=_stacked(offsets),
        on_object=_stacked(on_object),
        row=torch.tensor(list(rows)),
    )


def mean_sizes(store: SceneSource, rows: NDArray[np.int64], *, num_classes: int, oriented: bool) -> NDArray[np.float32]:
    """Return (C, 3) mean lengths of the boxes of every class; for a class without boxes those of all.

    Raises:
        DataError: There is no box at all.
    """
    total, count = np.zeros((num_classes, 3)), np.zeros(num_classes)
    for row in rows.tolist():
        boxes = _boxed_scene(store, row)[1]
        sizes = _rows(boxes) if oriented else upright(_rows(boxes))
        np.add.at(total, boxes.label, sizes[:, 3:6])
        np.add.at(count, boxes.label, 1)
    if count.sum() == 0:
        raise DataError(f"{store.path}: the labelled training scenes have no boxes; there is nothing to learn")
    of_all = total.sum(0) / count.sum()
    mean = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], of_all)
    return mean.astype(np.float32)


def _boxed_scene(store: SceneSource, row: int) -> tuple[Scene, SceneBoxes]:
    scene = store.scene(row)
    if scene.boxes is None:
        raise DataError(f"{store.path}: scene {scene.name} has no boxes; detection needs a source that has them")
    return scene, scene.boxes


def _rows(boxes: SceneBoxes) -> NDArray[np.float32]:
    return np.concatenate([boxes.center, boxes.size, boxes.heading[:, None]], axis=1).astype(np.float32)


def _stacked(arrays: Sequence[NDArray[np.generic]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.ascontiguousarray(array) for array in arrays]))
