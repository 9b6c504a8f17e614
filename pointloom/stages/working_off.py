"""Work through what a journal does not have yet, in worker processes, with a bar and a list of what failed."""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pointloom.data.records import Failure

logger = logging.getLogger(__name__)


class Listed(Protocol):
    """Something with a path to name it by."""

    @property
    def path(self) -> str:
        """Where it comes from."""


Item = TypeVar("Item", bound=Listed)
Result = TypeVar("Result")


def work_off(
    stage: str,
    function: Callable[[Item], Result],
    todo: Sequence[Item],
    *,
    total: int,
    keep: Callable[[Item, Result], None],
    num_workers: int,
    timeout_s: float,
    max_memory_gb: float,
    warm_up: Callable[[], None],
) -> "list[Failure]":
    """Apply a function to every item, keep each result as soon as it is there, and return what failed, by path.

    Args:
        stage: What the bar is called.
        function: What is done with an item, in a worker process.
        todo: The items that are not done.
        total: How many there are with those that were done before.
        keep: Puts a result where a later run finds it.
        num_workers: Worker processes.
        timeout_s: Seconds an item may take.
        max_memory_gb: Memory a worker may use.
        warm_up: Called once in every worker.
    """
    from tqdm import tqdm

    from pointloom.data.records import Failure
    from pointloom.data.workers import map_in_workers

    done = total - len(todo)
    if done:
        logger.info("going on where the last run stopped: %d of %d objects are done", done, total)
    failures = []
    interval = 0.2 if sys.stderr.isatty() else 10.0
    outcomes = map_in_workers(
        function, todo, num_workers=num_workers, timeout_s=timeout_s, max_memory_gb=max_memory_gb, warm_up=warm_up
    )
    with tqdm(total=total, initial=done, desc=stage, unit="object", mininterval=interval) as bar, closing(outcomes):
        for outcome in outcomes:
            if outcome.failure is not None:
                failures.append(Failure(outcome.item.path, *outcome.failure))
            elif outcome.result is not None:
                keep(outcome.item, outcome.result)
            bar.update()
            if failures:
                bar.set_postfix(quarantined=len(failures), refresh=False)
    return sorted(failures, key=lambda failure: failure.path)
