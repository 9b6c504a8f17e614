"""Blocks of rooms for object encoders: columns of a square metre, 2,048 points each (the PointNet line's protocol)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.scene_store import SceneStore
from pointloom.errors import DataError
from pointloom.structures import sent

TRIES = 100
"""Places tried in a room before its fullest block is taken although it has too few points."""


@dataclass(frozen=True)
class BlockBatch:
    """A batch of blocks.

    Attributes:
        coord: Metres; x and y from the middle of the block, z from the lowest point of the room.
        segment: Class per point.
    """

    coord: Float[Tensor, "b n 3"]
    segment: Int[Tensor, "b n"]

    def to(self, device: torch.device) -> "BlockBatch":
        """Return the batch on ``device``."""
        return BlockBatch(coord=sent(self.coord, device), segment=sent(self.segment, device))


@dataclass(frozen=True)
class BlockSampling:
    """How blocks are cut.

    Attributes:
        num_points: Points per block.
        size: Edge of the square, metres.
        min_points: A block must have more points than this (1,024 in the official code).
        scale: Range of the factor while training, the same for all axes.
        shift: Largest offset per axis while training, metres.
    """

    num_points: int
    size: float
    min_points: int
    scale: tuple[float, float]
    shift: float


def rows_of_areas(store: SceneStore, areas: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows of the rooms of some areas, such as 5 for the group ``Area_5``."""
    return np.flatnonzero(np.isin(store.groups, [f"Area_{area}" for area in areas]))


class BlockLoader:
    """Random blocks of some rooms, as many per epoch as their points fill; a room's share is that of its points."""

    def __init__(
        self, store: SceneStore, areas: Sequence[int], *, sampling: BlockSampling, batch_size: int, seed: int
    ) -> None:
        """Read the rooms into memory.

        Raises:
            DataError: The areas have no rooms, or fewer points than one batch takes.
        """
        rows = rows_of_areas(store, areas)
        if len(rows) == 0:
            known = ", ".join(np.unique(store.groups))
            raise DataError(f"{store.path}: no rooms of areas {', '.join(map(str, areas))}; there are {known}")
        rooms = [store.scene(int(row)) for row in rows]
        self.coords = [room.coord - room.coord.min(axis=0) for room in rooms]
        self.labels = [room.segment.astype(np.int64) for room in rooms]
        if any((labels < 0).any() for labels in self.labels):
            raise DataError(f"{store.path}: some points have no class; blocks need rooms with a class for every point")
        self.num_classes = len(store.info.classes)
        self.sampling = sampling
        self.seed = seed
        sizes = np.array([len(coord) for coord in self.coords])
        total = int(sizes.sum()) // sampling.num_points
        self.room_of = np.repeat(np.arange(len(rooms)), np.round(sizes / sizes.sum() * total).astype(np.int64))
        if len(self.room_of) == 0:
            raise DataError(f"{store.path}: {sizes.sum()} points are less than one block of {sampling.num_points}")
        self.batch_size = min(batch_size, len(self.room_of))

    def __len__(self) -> int:
        """Training steps per epoch; a last incomplete batch is left out."""
        return len(self.room_of) // self.batch_size

    def class_weights(self) -> NDArray[np.float32]:
        """Return (c,) the cube root of the most frequent class's frequency over each class's; 0 for absent ones."""
        counts = np.bincount(np.concatenate(self.labels), minlength=self.num_classes).astype(np.float64)
        share = np.divide(counts.max(), counts, out=np.zeros_like(counts), where=counts > 0)
        return np.cbrt(share).astype(np.float32)

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[BlockBatch]:
        """Yield shuffled, augmented training batches of one epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.room_of))
        for step in range(first_step, len(self)):
            chosen = self.room_of[order[step * self.batch_size : (step + 1) * self.batch_size]]
            rng = np.random.default_rng([self.seed, epoch, step + 1])
            batch = self._cut(chosen, rng)
            low, high = self.sampling.scale
            factor = rng.uniform(low, high, (len(chosen), 1, 1)).astype(np.float32)
            offset = rng.uniform(-self.sampling.shift, self.sampling.shift, (len(chosen), 1, 3)).astype(np.float32)
            coord = batch.coord * torch.from_numpy(factor) + torch.from_numpy(offset)
            yield BlockBatch(coord=coord, segment=batch.segment)

    def draw(self, draw: int) -> Iterator[BlockBatch]:
        """Yield as many random blocks as the points fill, without augmentation."""
        for start in range(0, len(self.room_of), self.batch_size):
            chosen = self.room_of[start : start + self.batch_size]
            yield self._cut(chosen, np.random.default_rng([self.seed, draw, start, 1]))

    def _cut(self, rooms: NDArray[np.int64], rng: np.random.Generator) -> BlockBatch:
        coord = np.empty((len(rooms), self.sampling.num_points, 3), dtype=np.float32)
        segment = np.empty((len(rooms), self.sampling.num_points), dtype=np.int64)
        for i, room in enumerate(rooms):
            middle, inside = self._place(self.coords[room], rng)
            few = len(inside) < self.sampling.num_points
            picked = rng.choice(inside, self.sampling.num_points, replace=few)
            coord[i] = self.coords[room][picked] - np.array([middle[0], middle[1], 0.0], dtype=np.float32)
            segment[i] = self.labels[room][picked]
        return BlockBatch(coord=torch.from_numpy(coord), segment=torch.from_numpy(segment))

    def _place(
        self, coord: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Choose a point as the middle of a block that has enough points, and return the points inside."""
        fullest: tuple[NDArray[np.float32], NDArray[np.int64]] = coord[0], np.empty(0, dtype=np.int64)
        for _ in range(TRIES):
            middle = coord[rng.integers(len(coord))]
            inside = np.flatnonzero((np.abs(coord[:, :2] - middle[:2]) <= self.sampling.size / 2).all(1))
            if len(inside) > len(fullest[1]):
                fullest = middle, inside
            if len(inside) > self.sampling.min_points:
                break
        return fullest
