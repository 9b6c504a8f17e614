"""How long training waits for its data."""

import time
from collections.abc import Iterator

from pointloom.structures import Batch
from pointloom.train.loop import Loader


class TimedLoader:
    """A loader that measures, without touching the device, how long it lets its reader wait.

    Attributes:
        waited_s: Wall seconds until batches were there.
        worked_s: Wall seconds between a batch and the request for the next one.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.waited_s = 0.0
        self.worked_s = 0.0

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self._loader)

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from ``first_step`` on."""
        source = self._loader.batches(epoch, first_step=first_step)
        asked = time.perf_counter()
        for batch in source:
            came = time.perf_counter()
            self.waited_s += came - asked
            yield batch
            asked = time.perf_counter()
            self.worked_s += asked - came

    @property
    def percent_waited(self) -> float:
        """Share of the time that was spent waiting, 0 before the first batch."""
        total = self.waited_s + self.worked_s
        return 100 * self.waited_s / total if total else 0.0
