"""Batches of clouds with the part of every point: a function of seed, epoch and step, as ``ObjectLoader``'s are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.records import NO_PART
from pointloom.data.shards import ObjectStore
from pointloom.data.transforms import unit_sphere
from pointloom.errors import DataError
from pointloom.structures import sent


@dataclass(frozen=True)
class PartBatch:
    """A batch of clouds whose points are labelled.

    Attributes:
        coord: Coordinates, the whole shape centred by its mean and scaled to radius 1 before points were drawn.
        label: Category per cloud.
        segment: Part per point, counted through all categories.
        row: Row of each cloud in the store's index.
    """

    coord: Float[Tensor, "b n 3"]
    label: Int[Tensor, " b"]
    segment: Int[Tensor, "b n"]
    row: Int[Tensor, " b"]

    def to(self, device: torch.device) -> "PartBatch":
        """Return the batch on ``device``."""
        return PartBatch(
            coord=sent(self.coord, device),
            label=sent(self.label, device),
            segment=sent(self.segment, device),
            row=sent(self.row, device),
        )


@dataclass(frozen=True)
class PartSampling:
    """Which points of a shape the network sees and how shapes are changed while training.

    Attributes:
        num_points: Points per cloud.
        replacement: Whether a point may be drawn twice, as the official code does in training and in tests.
        scale: Range of the factor while training, the same for all axes.
        shift: Largest offset per axis while training.
    """

    num_points: int
    replacement: bool
    scale: tuple[float, float]
    shift: float


def part_counts(store: ObjectStore) -> list[int]:
    """Return the number of parts per class of a store, in the order of its labels.

    Raises:
        DataError: The store has no part labels, or lacks those of a class.
    """
    missing = [name for name in store.info.classes if not store.info.parts.get(name)]
    if missing or not store.info.classes:
        raise DataError(
            f"{store.path}: part segmentation needs part labels for every class, and there are none for "
            f"{', '.join(missing) if missing else 'any object'}; prepare a data set with parts (synthetic objects and "
            "ShapeNetPart have them)"
        )
    return [len(store.info.parts[name]) for name in store.info.classes]


class PartLoader:
    """Clouds of some rows of a store with the parts of their points."""

    def __init__(
        self, store: ObjectStore, rows: NDArray[np.int64], *, sampling: PartSampling, batch_size: int, seed: int
    ) -> None:
        """Read ``rows`` into memory.

        Raises:
            DataError: There are no rows, no part labels, a shape without a labelled point, or too few points to draw
                from without replacement.
        """
        parts = part_counts(store)
        if len(rows) == 0:
            raise DataError(f"{store.path}: there is no labelled object to train or test on; look at its index")
        self.rows = rows
        self.sampling = sampling
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.labels = store.labels[rows]
        first = np.concatenate([[0], np.cumsum(parts)[:-1]])[self.labels]
        coord, local = store.coords(rows), store.segments(rows)
        self._known = local != NO_PART
        self._check_points(store)
        self._segment = np.where(self._known, local + first[:, None].astype(np.int16), -1).astype(np.int16)
        self._coord = coord

    def _check_points(self, store: ObjectStore) -> None:
        """Refuse shapes that have no part labels, or too few points."""
        fewest = int(self._known.sum(1).argmin())
        count, wanted = int(self._known[fewest].sum()), 1 if self.sampling.replacement else self.sampling.num_points
        if count < wanted:
            raise DataError(
                f"{store.path}: {store.uids[self.rows[fewest]]} has {count} points with a part label, "
                f"{self.sampling.num_points} are to be drawn; lower num_points, draw with replacement, or prepare again"
            )

    def __len__(self) -> int:
        """Training steps per epoch; a last incomplete batch is left out."""
        return len(self.rows) // self.batch_size

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[PartBatch]:
        """Yield shuffled, augmented training batches of one epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng([self.seed, epoch, step + 1])
            batch = self._draw(chosen, rng)
            low, high = self.sampling.scale
            factor = rng.uniform(low, high, (len(chosen), 1, 1)).astype(np.float32)
            offset = rng.uniform(-self.sampling.shift, self.sampling.shift, (len(chosen), 1, 3)).astype(np.float32)
            coord = batch.coord * torch.from_numpy(factor) + torch.from_numpy(offset)
            yield PartBatch(coord=coord, label=batch.label, segment=batch.segment, row=batch.row)

    def draw(self, draw: int) -> Iterator[PartBatch]:
        """Yield all clouds in order, without augmentation; every ``draw`` is another random choice of points."""
        for start in range(0, len(self.rows), self.batch_size):
            chosen = np.arange(start, min(start + self.batch_size, len(self.rows)))
            yield self._draw(chosen, np.random.default_rng([self.seed, draw, start]))

    def _draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> PartBatch:
        """Draw points of every chosen shape."""
        num = self.sampling.num_points
        coord = np.empty((len(chosen), num, 3), dtype=np.float32)
        segment = np.empty((len(chosen), num), dtype=np.int64)
        for i, shape in enumerate(chosen):  # shapes have different numbers of labelled points
            known = np.flatnonzero(self._known[shape])
            picked = rng.choice(len(known), num, replace=self.sampling.replacement)
            whole = unit_sphere(torch.from_numpy(self._coord[shape][known])[None])[0].numpy()
            coord[i], segment[i] = whole[picked], self._segment[shape][known[picked]]
        return PartBatch(
            coord=torch.from_numpy(coord),
            label=torch.from_numpy(self.labels[chosen]),
            segment=torch.from_numpy(segment),
            row=torch.from_numpy(self.rows[chosen]),
        )
