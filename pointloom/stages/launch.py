"""Start a stage: here, in several processes of this machine, or on several machines of a cluster.

A training stage is always the same command. ``POINTLOOM_PROCESSES=4`` makes it start four training processes by
torchrun; torchrun's own variables (``PET_NNODES`` and others), which Kubeflow Trainer sets in the pods of a TrainJob,
make it one machine of several; ``POINTLOOM_TRAINJOB`` makes it start such a TrainJob and wait for it.
"""

import logging
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pointloom.errors import ParamsError
from pointloom.stages.params import StageParams
from pointloom.stages.signature import StageSignature

logger = logging.getLogger(__name__)

TRAINING = ("pretrain", "align", "distill")
"""Stages that train one model, which several processes can do together; other stages run once."""

RESTARTS = 2
EXIT_USER_ERROR, EXIT_PREEMPTED, EXIT_INTERRUPTED = 2, 75, 130
FINAL = (EXIT_USER_ERROR, EXIT_PREEMPTED, EXIT_INTERRUPTED)


def run_stage(signature: StageSignature, params: StageParams, paths: Mapping[str, Path]) -> None:
    """Run a stage as the environment says.

    Raises:
        ParamsError: ``POINTLOOM_PROCESSES`` is no number.
        SystemExit: The training processes have failed, or were asked to end (75).
    """
    training = signature.name in TRAINING and "RANK" not in os.environ
    if training and os.environ.get("POINTLOOM_TRAINJOB"):
        from pointloom.trainjobs.stage import run_as_train_job

        run_as_train_job(signature, params, paths)
        return
    processes = wanted_processes()
    if training and (processes is None or processes > 1):
        start_processes(command(signature, params, paths), processes)
        return
    signature.function(params, **paths)


def wanted_processes() -> int | None:
    """Return how many training processes to start here, None where torchrun's own variables say so.

    Raises:
        ParamsError: ``POINTLOOM_PROCESSES`` is no number.
    """
    if "PET_NNODES" in os.environ:
        return None
    text = os.environ.get("POINTLOOM_PROCESSES") or "1"
    if not text.isdecimal() or int(text) == 0:
        raise ParamsError(f"POINTLOOM_PROCESSES={text}: expected a number of processes, such as 4")
    return int(text)


def command(signature: StageSignature, params: StageParams, paths: Mapping[str, Path]) -> list[str]:
    """Return the arguments of ``pointloom`` that run a stage."""
    words = [signature.name, "--params", params.model_dump_json()]
    for name, path in paths.items():
        words += [f"--{name.replace('_', '-')}", str(path)]
    return words


def start_processes(words: Sequence[str], processes: int | None) -> None:
    """Run ``pointloom WORDS`` in several processes that train together.

    When one is lost, the others are ended, and on a single machine all are started again from the last saved state;
    a job of several machines leaves that to the cluster.

    Args:
        words: Arguments of ``pointloom``.
        processes: How many; None where torchrun's own variables say so.

    Raises:
        SystemExit: With the code of the process that failed first; 75 after SIGTERM; 1 when processes are lost again
            and again.
        KeyboardInterrupt: Ctrl-C.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    if processes is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    options = [] if processes is None else [f"--nproc-per-node={processes}"]
    attempts = 1 if processes is None else 1 + RESTARTS
    for attempt in range(attempts):
        try:
            with _signal_handlers_kept():
                run(parse_args([*options, "--max-restarts=0", "--module", "pointloom", *words]))
            return
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise SystemExit(EXIT_PREEMPTED) from error
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode in FINAL:
                raise SystemExit(failure.exitcode) from error
            last = attempt + 1 == attempts
            logger.error(
                "training process %d of `pointloom %s` has ended with code %d%s", rank, words[0], failure.exitcode,
                "" if last else "; all are started again from the last saved state",
            )  # fmt: skip
    raise SystemExit(1)


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Undo afterwards what torchrun does to signal handlers."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
