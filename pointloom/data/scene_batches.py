"""Batches of scenes: a function of seed, epoch and step, so that a run can resume anywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.materials import NEUTRAL
from pointloom.data.scene_loading import SceneSource, ShuffledScenes
from pointloom.data.scene_transforms import (
    Augmentation,
    ScenePoints,
    augment,
    grid_sample,
    random_block,
    sphere_crop,
)
from pointloom.data.scenes import Scene
from pointloom.structures import SceneBatch

LEAST_POINTS = {"keep": 512, "remove": 1024}
"""What a block must leave, as in MM-3DScene's code for fine-tuning and for pre-training."""


@dataclass(frozen=True)
class SceneSampling:
    """Which points of a scene the network sees and how they are changed.

    Attributes:
        voxel_size: Edge in metres; a batch has one random point of every voxel.
        max_points: While training, a scene with more voxels is cropped to this many, those nearest to a random one;
            None keeps all.
        block: While training, ``keep`` only what is in a random upright block, or ``remove`` it (MM-3DScene), unless
            that leaves fewer than ``LEAST_POINTS``.
        augmentation: How scenes are changed while training.
        prefer_labelled: Take the labelled point of a voxel where there is one: for scenes with few labelled points.
    """

    voxel_size: float
    max_points: int | None = None
    block: Literal["none", "keep", "remove"] = "none"
    augmentation: Augmentation = field(default_factory=Augmentation)
    prefer_labelled: bool = False


def scene_points(scene: Scene) -> ScenePoints:
    """Return a scene's points, xy centred and z from 0, colours in [0, 1]; grey and 0 where unknown."""
    low, high = scene.coord.min(axis=0), scene.coord.max(axis=0)
    origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]], dtype=np.float32)
    shape = scene.coord.shape
    color = np.full(shape, NEUTRAL, dtype=np.uint8) if scene.color is None else scene.color
    return ScenePoints(
        coord=scene.coord - origin,
        color=color.astype(np.float32) / np.float32(255),
        normal=np.zeros(shape, dtype=np.float32) if scene.normal is None else scene.normal,
        segment=scene.segment.astype(np.int64),
        instance=scene.instance.astype(np.int64),
    )


def pack(scenes: Sequence[ScenePoints], rows: Sequence[int]) -> SceneBatch:
    """Put scenes one after the other into a batch."""
    joined = {name: np.concatenate([getattr(s, name) for s in scenes]) for name in ScenePoints.__dataclass_fields__}
    return SceneBatch(
        **{name: torch.from_numpy(array) for name, array in joined.items()},
        offset=torch.tensor([len(s.coord) for s in scenes]).cumsum(0),
        row=torch.tensor(list(rows)),
    )


class SceneLoader(ShuffledScenes[SceneBatch]):
    """Some rows of a store, in shuffled batches for training or one by one in order for evaluation."""

    def __init__(
        self, store: SceneSource, rows: NDArray[np.int64], *, sampling: SceneSampling, batch_size: int, seed: int
    ) -> None:
        super().__init__(store, rows, batch_size=batch_size, seed=seed)
        self.sampling = sampling

    def draw(self, draw: int) -> Iterator[SceneBatch]:
        """Yield every whole scene in order, one per batch, without crops and augmentation.

        Args:
            draw: 0 takes the first point of every voxel; 1, 2, ... are random ones.
        """
        for row in self.rows.tolist():
            rng = None if draw == 0 else np.random.default_rng([self.seed, draw, row, 1])
            points = scene_points(self.store.scene(row))
            yield pack([points.take(self._one_per_voxel(points, rng))], [row])

    def _training_batch(self, rows: list[int], rngs: list[np.random.Generator]) -> SceneBatch:
        return pack([self._train(row, rng) for row, rng in zip(rows, rngs, strict=True)], rows)

    def _train(self, row: int, rng: np.random.Generator) -> ScenePoints:
        sampling = self.sampling
        points = augment(scene_points(self.store.scene(row)), sampling.augmentation, rng)
        if sampling.block != "none":
            inside = random_block(points.coord, rng)
            kept = inside if sampling.block == "keep" else ~inside
            points = points.take(kept) if int(kept.sum()) >= LEAST_POINTS[sampling.block] else points
        points = points.take(self._one_per_voxel(points, rng))
        if sampling.max_points is not None and len(points.coord) > sampling.max_points:
            center = points.coord[rng.integers(len(points.coord))]
            points = points.take(sphere_crop(points.coord, sampling.max_points, center))
        return points

    def _one_per_voxel(self, points: ScenePoints, rng: np.random.Generator | None) -> NDArray[np.int64]:
        preferred = points.segment >= 0 if self.sampling.prefer_labelled else None
        return grid_sample(points.coord, self.sampling.voxel_size, rng, preferred=preferred)[0]
