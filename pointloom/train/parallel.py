"""Run independent training jobs: one process and one thread per core on a CPU, one after the other on a GPU."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from pointloom.data.workers import interrupts_deferred
from pointloom.errors import PointloomError

Job = TypeVar("Job")
Result = TypeVar("Result")
Advance = Callable[[], None]

_POLL_S = 0.5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_steps_done: "Synchronized[int] | None" = None


def run_jobs(
    function: Callable[[Job, Advance], Result],
    jobs: Sequence[Job],
    *,
    device: torch.device,
    num_workers: int,
    total_steps: int,
    label: str,
) -> Iterator[tuple[Job, Result]]:
    """Yield every job with its result, in the order in which they finish, and show progress with an ETA.

    Args:
        function: Importable by name; is given the job and a function to call after every step.
        jobs: Picklable descriptions.
        device: A CUDA device runs the jobs in this process.
        num_workers: Processes to use on a CPU.
        total_steps: Sum of the steps of all jobs.
        label: Text in front of the progress bar.

    Raises:
        PointloomError: A worker process was killed.
    """
    with tqdm(total=total_steps, desc=label, unit="step", smoothing=0.02) as bar:

        def advance() -> None:
            bar.update()

        if device.type == "cuda" or min(num_workers, len(jobs)) <= 1:
            for job in jobs:
                yield job, function(job, advance)
            return
        yield from _run_in_processes(function, jobs, num_workers=min(num_workers, len(jobs)), bar=bar)


def _run_in_processes(
    function: Callable[[Job, Advance], Result], jobs: Sequence[Job], *, num_workers: int, bar: "tqdm[Any]"
) -> Iterator[tuple[Job, Result]]:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("Q", 0)
    with _single_threaded_children(), interrupts_deferred():
        pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start, initargs=(counter,))
        pending: dict[Future[Result], Job] = {pool.submit(_run, function, job): job for job in jobs}
        # A submit lets the pool look whom to watch before it starts its worker: without one more, the death of the
        # last worker would be noticed only when another job ends.
        pool.submit(int)
    try:
        while pending:
            finished, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            bar.update(counter.value - bar.n)
            for future in finished:
                yield pending.pop(future), future.result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise PointloomError(
                f"{bar.desc}: a worker process was killed (short of memory?); what was finished is kept, "
                "the same command continues from there"
            ) from error
        raise
    pool.shutdown()


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(counter: "Synchronized[int]") -> None:
    global _steps_done
    _steps_done = counter
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_connection([parent.sentinel])
        os._exit(1)


def _run(function: Callable[[Job, Advance], Result], job: Job) -> Result:
    counter = _steps_done
    assert counter is not None, "the worker was not started by run_jobs"

    def advance() -> None:
        with counter.get_lock():
            counter.value += 1

    try:
        return function(job, advance)
    except (KeyboardInterrupt, SystemExit):  # asked to stop: the job has saved its state, and no other is wanted
        os._exit(1)
