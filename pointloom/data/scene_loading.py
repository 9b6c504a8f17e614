"""What all loaders of scenes share: shuffled batches of some rows, a function of seed, epoch and step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pointloom.data.scenes import Scene
from pointloom.errors import DataError

Batch = TypeVar("Batch")


@runtime_checkable
class SceneSource(Protocol):
    """What a loader knows of a store: where it is, for messages, and its scenes."""

    path: Path

    def scene(self, row: int) -> Scene:
        """Read one scene."""
        ...


class ShuffledScenes(ABC, Generic[Batch]):
    """Some rows of a store in shuffled batches; scenes are read when they are needed."""

    def __init__(self, store: SceneSource, rows: NDArray[np.int64], *, batch_size: int, seed: int) -> None:
        """Prepare to read ``rows``.

        Raises:
            DataError: There are no rows.
        """
        if len(rows) == 0:
            raise DataError(f"{store.path}: there is no scene to train or test on; look at its index and split")
        self.store = store
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed

    def __len__(self) -> int:
        """Training steps per epoch; a last incomplete batch is left out."""
        return len(self.rows) // self.batch_size

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """Yield shuffled, augmented training batches of one epoch; the next one is made while one is in use."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))

        def make(step: int) -> Batch:
            chosen = self.rows[order[step * self.batch_size : (step + 1) * self.batch_size]].tolist()
            rngs = [np.random.default_rng([self.seed, epoch, step + 1, place]) for place in range(len(chosen))]
            return self._training_batch(chosen, rngs)

        with ThreadPoolExecutor(max_workers=1) as thread:
            ahead = thread.submit(make, first_step) if first_step < len(self) else None
            for step in range(first_step, len(self)):
                assert ahead is not None
                batch = ahead.result()
                ahead = thread.submit(make, step + 1) if step + 1 < len(self) else None
                yield batch

    @abstractmethod
    def _training_batch(self, rows: list[int], rngs: list[np.random.Generator]) -> Batch:
        """Return some rows as a batch, each changed at random by its own generator."""
