"""Batches of object clouds: a function of seed, epoch and step, so that a run can resume anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.records import StoreInfo
from pointloom.data.transforms import rotate_about_up, scale_and_shift, unit_sphere
from pointloom.errors import DataError
from pointloom.structures import PointBatch

CACHE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Sampling:
    """Which points of an object the network sees and how they are changed.

    Attributes:
        num_points: Points per cloud.
        pool: How many of the stored points (a farthest-point prefix) the random subset is drawn from.
        scale: Range of the per-axis factor while training; (1, 1) = off.
        shift: Largest per-axis offset while training.
        rotate_degrees: Largest turn about the up axis while training.
    """

    num_points: int
    pool: int
    scale: tuple[float, float]
    shift: float
    rotate_degrees: float


@runtime_checkable
class CloudSource(Protocol):
    """What the loader knows of a store.

    Attributes:
        path: Where it is, for messages.
        info: Points per object and how clouds are to be normalised.
        labels: (A,) class per object, -1 where unknown.
    """

    path: Path
    info: StoreInfo
    labels: NDArray[np.int64]

    def coords(self, rows: NDArray[np.int64], num_points: int | None = None) -> NDArray[np.float32]:
        """Return (R, num_points, 3) coordinates in farthest-point order."""
        ...


class ObjectLoader:
    """Clouds of some rows of a store, in shuffled batches for training or in order for evaluation."""

    def __init__(
        self, store: CloudSource, rows: NDArray[np.int64], *, sampling: Sampling, batch_size: int, seed: int
    ) -> None:
        """Prepare to read ``rows``.

        Raises:
            DataError: There are no rows, or the store has fewer points per object than asked for.
        """
        if len(rows) == 0:
            raise DataError(f"{store.path}: there is no object to train or test on; look at its index and split")
        available = store.info.num_points
        if not sampling.num_points <= sampling.pool <= available:
            raise DataError(
                f"{store.path}: num_points {sampling.num_points} <= pool {sampling.pool} <= {available} (points per "
                "stored object) must hold; change the params, or prepare with more points"
            )
        self.store = store
        self._keep_size = store.info.settings.get("loader_transform") == "none"  # ScanObjectNN: size is a cue
        self.rows = rows
        self.sampling = sampling
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self._labels = torch.from_numpy(store.labels[rows])
        fits = len(rows) * sampling.pool * 12 <= CACHE_BYTES
        self._cached = store.coords(rows, num_points=sampling.pool) if fits else None

    def __len__(self) -> int:
        """Training steps per epoch; a last incomplete batch is left out."""
        return len(self.rows) // self.batch_size

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[PointBatch]:
        """Yield shuffled, augmented training batches of one epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng([self.seed, epoch, step + 1])
            yield self._batch(self._draw_augmented(chosen, rng), chosen)

    def draw(self, draw: int) -> Iterator[PointBatch]:
        """Yield all clouds in order, without augmentation.

        Args:
            draw: 0 takes the farthest-point prefix (the field's test protocol); 1, 2, ... are random subsets.
        """
        for start in range(0, len(self.rows), self.batch_size):
            chosen = np.arange(start, min(start + self.batch_size, len(self.rows)))
            if draw == 0:
                coord = torch.from_numpy(self._pool(chosen)[:, : self.sampling.num_points])
            else:
                coord = self._draw(chosen, np.random.default_rng([self.seed, draw, start]))
            yield self._batch(self._normalised(coord), chosen)

    def draw_augmented(self, draw: int) -> Iterator[PointBatch]:
        """Yield all clouds in order, augmented as in training: voting tests several such draws."""
        for start in range(0, len(self.rows), self.batch_size):
            chosen = np.arange(start, min(start + self.batch_size, len(self.rows)))
            rng = np.random.default_rng([self.seed, draw, start, 1])
            yield self._batch(self._draw_augmented(chosen, rng), chosen)

    def _draw_augmented(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Draw points of every chosen cloud, normalise, turn, scale and shift."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        coord = self._normalised(self._draw(chosen, rng))
        if self.sampling.rotate_degrees > 0:
            coord = rotate_about_up(coord, max_degrees=self.sampling.rotate_degrees, generator=generator)
        return scale_and_shift(coord, scale=self.sampling.scale, shift=self.sampling.shift, generator=generator)

    def _normalised(self, coord: Tensor) -> Tensor:
        """Bring clouds into the unit sphere, unless the data set's protocol keeps their size."""
        return coord if self._keep_size else unit_sphere(coord)

    def _batch(self, coord: Tensor, chosen: NDArray[np.int64]) -> PointBatch:
        return PointBatch(coord=coord, label=self._labels[chosen], row=torch.from_numpy(self.rows[chosen]))

    def _pool(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._cached is not None:
            return self._cached[chosen]
        return self.store.coords(self.rows[chosen], num_points=self.sampling.pool)

    def _draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Take a random subset of every cloud's pool, without repetition."""
        pool = self._pool(chosen)
        if self.sampling.num_points == self.sampling.pool:
            return torch.from_numpy(pool)
        keys = rng.random(pool.shape[:2], dtype=np.float32)
        picked = np.argpartition(keys, self.sampling.num_points, axis=1)[:, : self.sampling.num_points]
        return torch.from_numpy(np.take_along_axis(pool, picked[..., None], axis=1))
