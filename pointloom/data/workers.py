"""Apply a function to many items in worker processes that may hang, crash or swallow memory without harm.

Workers are started afresh (spawn), stay alive from item to item, use one thread each, and are killed and replaced when
an item exceeds its time or memory. They end by themselves when the parent process is gone, however it ended.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from pointloom.data.quarantine import RejectedError
from pointloom.errors import BackendError

Item = TypeVar("Item")
Result = TypeVar("Result")

_START_LIMIT_S = 180.0
_POLL_S = 0.1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item.

    Attributes:
        item: The item.
        result: What the function returned; None if it failed.
        failure: ``(reason, detail)``, reasons as in ``quarantine.REASONS``; None if it went well.
    """

    item: Item
    result: Result | None
    failure: tuple[str, str] | None


def available_cores() -> int:
    """Return how many cores this process may use (a container's share, not the whole machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_workers(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    timeout_s: float,
    max_memory_gb: float,
    warm_up: Callable[[], None] | None = None,
) -> Generator[Outcome[Item, Result], None, None]:
    """Apply ``function`` to every item and yield the outcomes as they arrive, in any order.

    Args:
        function: A module-level function; ``RejectedError`` is its way to refuse an item.
        items: What to work on; must be picklable.
        num_workers: Processes to start; 0 means one per available core.
        timeout_s: Wall-clock limit per item.
        max_memory_gb: Limit of a worker's resident memory.
        warm_up: Called once in each new worker before its time counts, to import and compile.

    Raises:
        BackendError: Workers cannot be started.
    """
    if not items:
        return
    num = min(num_workers or available_cores(), len(items))
    job = pickle.dumps((function, warm_up, timeout_s))
    queue = deque(items)
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(job) for _ in range(num))
        while workers:
            ready = wait([w.pipe for w in workers] + [w.process.sentinel for w in workers], timeout=_POLL_S)
            for worker in list(workers):
                outcome = worker.collect(ready, timeout_s=timeout_s, max_memory_gb=max_memory_gb)
                if outcome is not None:
                    yield outcome
                if not worker.alive:
                    worker.stop()
                    workers.remove(worker)
                    if queue:
                        workers.append(_Worker(job))
                elif worker.idle:
                    if queue:
                        worker.give(queue.popleft())
                    else:
                        worker.stop()
                        workers.remove(worker)
    finally:
        for worker in workers:
            worker.stop()


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Start children that Ctrl-C does not reach, and let the parent react to a signal only when they have started.

    The whole process group gets Ctrl-C: a child that is still starting would print a trace, and so would one whose
    parent stops in the middle of telling it what to do.
    """
    resource_tracker.ensure_running()  # its start would unblock the signal again, just before the first child's
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    arrived: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda caught, _: arrived.append(caught))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for number_caught in arrived:
            signal.raise_signal(number_caught)


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, job: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child, job), daemon=True)
        with interrupts_deferred():
            self.process.start()
        child.close()
        self.alive = True
        self.ready = False
        self.item: Any = None
        self.busy = False
        self.since = time.monotonic()

    @property
    def idle(self) -> bool:
        return self.ready and not self.busy

    def give(self, item: Any) -> None:
        self.item, self.busy, self.since = item, True, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed by its sentinel
            self.pipe.send(item)

    def collect(self, ready: Sequence[Any], *, timeout_s: float, max_memory_gb: float) -> Outcome[Any, Any] | None:
        """Take the worker's answer, or its failure to answer; None if there is nothing to tell."""
        if self.pipe in ready:
            return self._receive()
        if self.process.sentinel in ready:
            return self._lost()
        waited = time.monotonic() - self.since
        if not self.ready and waited > _START_LIMIT_S:
            raise BackendError(
                f"a worker process did not start within {_START_LIMIT_S:.0f} s; is the machine overloaded?"
            )
        if self.busy and waited > timeout_s:
            return self._give_up("timeout", f"stopped after {waited:.0f} s; raise timeout_s if it needs longer")
        if self.busy and (used := _resident_gb(self.process.pid)) > max_memory_gb:
            return self._give_up("memory", f"stopped at {used:.1f} GB; raise max_memory_gb if it needs more")
        return None

    def _receive(self) -> Outcome[Any, Any] | None:
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            return self._lost()
        if kind == "ready":
            self.ready = True
            return None
        self.busy = False
        return Outcome(self.item, content, None) if kind == "done" else Outcome(self.item, None, content)

    def _lost(self) -> Outcome[Any, Any] | None:
        self.process.join(timeout=5)
        self.alive = False
        code = self.process.exitcode
        if not self.ready:
            raise BackendError(
                f"worker processes end at their start (exit code {code}); see the lines above. A script that calls "
                "this must keep its own code under `if __name__ == '__main__':`"
            )
        if not self.busy:
            return None
        reason = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        return Outcome(self.item, None, ("crashed", f"the loader ended its process ({reason})"))

    def _give_up(self, reason: str, detail: str) -> Outcome[Any, Any]:
        self.alive = False
        return Outcome(self.item, None, (reason, detail))

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _resident_gb(pid: int | None) -> float:
    import psutil

    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e9
    except psutil.Error:
        return 0.0


def _serve(pipe: Connection, job: bytes) -> None:
    """Run in the worker: answer items until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.environ |= dict.fromkeys(_THREAD_VARIABLES, "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function, warm_up, timeout_s = pickle.loads(job)
    if warm_up is not None:
        warm_up()
    pipe.send(("ready", None))
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        # ends this process even if the loader holds the interpreter lock and the parent is gone
        with open(os.devnull, "w") as sink:
            faulthandler.dump_traceback_later(2 * timeout_s + 10, exit=True, file=sink)
            answer = _attempt(function, item)
            faulthandler.cancel_dump_traceback_later()
        pipe.send(answer)


def _attempt(function: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    try:
        return "done", function(item)
    except RejectedError as error:
        return "failed", (error.reason, error.detail)
    except MemoryError:
        return "failed", ("memory", "it asks for more memory than there is")
    except Exception as error:
        return "failed", ("unreadable", f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
