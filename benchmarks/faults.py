"""What happens when something breaks: inject each fault into a real training, and say what was expected and observed.

``python -m benchmarks.faults`` (minutes; ``make faults``) prints the table of docs/operations.md. It ends with code 1
if a fault had another outcome than expected.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from benchmarks.fault_runs import EPOCHS, Stage, prepare
from benchmarks.fault_servers import free_port, slow_proxy, tracking_server

SMALL_FILE = 200_000
TOLERANCE = 1e-2  # AdamW amplifies the rounding of sums in another order, step after step
STALL_S = 60.0  # how much longer than without a fault a run may take on a busy machine


@dataclass
class Reference:
    """What runs without faults have made, in one process and in two."""

    folder: Path
    weights: str
    losses: list[float]
    weights_of_two: str
    training_s: float
    rng: random.Random

    def moment(self, first: int, last: int) -> tuple[int, int]:
        """Return a random step of a random epoch; a moment in seconds would come too late where the load varies."""
        return self.rng.randint(first, last), self.rng.randint(1, 8)

    def last_log(self) -> str:
        """Return the end of what the run that ended last has printed."""
        return Stage.last_log[-2000:]


def same(stage: Stage, reference: Reference, *, two: bool = False) -> str:
    """Say whether a run has ended as one without a fault."""
    expected = reference.weights_of_two if two else reference.weights
    bits = "same bits" if stage.weights() == expected else "OTHER WEIGHTS"
    return f"{bits}, metrics {stage.recorded()}"


GOOD = "same bits, metrics each once"


def killed(reference: Reference) -> tuple[str, str]:
    """kill -9 of the stage at a random moment, three times, then once more to the end"""
    stage = Stage(reference.folder, "killed")
    codes, half = [], []
    for epoch in (0, 2, 4):
        codes.append(stage.interrupt(signal.SIGKILL, after=reference.moment(epoch, epoch + 1)))
        half += stage.half_written()
    codes.append(stage.run())
    return f"codes -9 -9 -9 0; nothing half-written; {GOOD}", (
        f"codes {' '.join(map(str, codes))}; {half or 'nothing'} half-written; {same(stage, reference)}"
    )


def killed_while_writing(reference: Reference) -> tuple[str, str]:
    """kill -9 while the encoder is being written, then again"""
    stage = Stage(reference.folder, "writing")
    process = stage.start()
    partial = stage.encoder.with_name(f".{stage.encoder.name}.partial")
    reached = stage.wait_for(process, lambda: (partial / "curves.csv").exists())
    os.killpg(process.pid, signal.SIGKILL)
    stage.finish(process)
    half = stage.half_written()
    code = stage.run()
    return f"caught; nothing half-written; code 0; {GOOD}", (
        f"{'caught' if reached else 'TOO LATE'}; {half or 'nothing'} half-written; code {code}; "
        f"{same(stage, reference)}"
    )


def preempted(reference: Reference) -> tuple[str, str]:
    """SIGTERM at a random moment, then again"""
    stage = Stage(reference.folder, "preempted")
    first = stage.interrupt(signal.SIGTERM, after=reference.moment(0, 5))
    said = "Asked to end" in stage.log
    code = stage.run()
    return f"code 75 with a message, then 0; {GOOD}", (
        f"code {first} {'with' if said else 'WITHOUT'} a message, then {code}; {same(stage, reference)}"
    )


def lost_worker(reference: Reference) -> tuple[str, str]:
    """kill -9 of one of two training processes"""
    stage = Stage(reference.folder, "worker")
    process = stage.start(processes=2)
    moment = reference.moment(0, 5)
    stage.wait_for(process, lambda: stage.progress() >= moment)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if environment(child) == "1"]
    for worker in workers[:1]:
        worker.kill()
    code = stage.finish(process)
    again = "started again from the last saved state" in stage.log
    return f"one killed, started again by itself, code 0; {GOOD}", (
        f"{'one' if workers else 'NONE'} killed, {'' if again else 'NOT '}started again by itself, code {code}; "
        f"{same(stage, reference, two=True)}"
    )


def environment(process: psutil.Process) -> str:
    try:
        return process.environ().get("RANK", "") if "pointloom" in process.cmdline() else ""
    except psutil.Error:
        return ""


def other_world_size(reference: Reference) -> tuple[str, str]:
    """SIGTERM to two processes, then one goes on, SIGTERM, then two again"""
    stage = Stage(reference.folder, "world")
    codes = []
    for processes, epoch in ((2, 0), (1, 3)):
        after = reference.moment(epoch, epoch + 2)
        codes.append(stage.interrupt(signal.SIGTERM, after=after, processes=processes))
    codes.append(stage.run(processes=2))
    gap = max(abs(a - b) / b for a, b in zip(stage.losses(), reference.losses, strict=True))
    close = "losses within 1 %" if gap < TOLERANCE else f"losses differ by {gap:.1e}"
    return "codes 75 75 0; losses within 1 %, metrics each once", (
        f"codes {' '.join(map(str, codes))}; {close}, metrics {stage.recorded()}"
    )


def file_too_large(reference: Reference) -> tuple[str, str]:
    """no file above 0.2 MB may be written, then it may"""
    stage = Stage(reference.folder, "limit")
    first = stage.run(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE)))
    return after_disk_error(stage, reference, first)


def full_disk(reference: Reference) -> tuple[str, str]:
    """output and state on a disk of 1 MB, then on one with room"""
    return on_small_disk(reference, "full", "size=1m")


def read_only(reference: Reference) -> tuple[str, str]:
    """output and state on a read-only disk, then on one that can be written"""
    return on_small_disk(reference, "readonly", "ro")


def on_small_disk(reference: Reference, name: str, option: str) -> tuple[str, str]:
    stage = Stage(reference.folder, name)
    for part in (stage.encoder.parent, stage.state):
        part.mkdir()
    with mounted(option, stage.encoder.parent, stage.state) as works:
        if not works:
            return "not tried: this account may not mount", "not tried: this account may not mount"
        first = stage.run(TMPDIR=str(stage.place))
    return after_disk_error(stage, reference, first)


def after_disk_error(stage: Stage, reference: Reference, first: int) -> tuple[str, str]:
    one_message = "Traceback" not in stage.log and "Error: " in stage.log
    half = stage.half_written()
    code = stage.run()
    return f"code 2 with one message; nothing half-written; then 0; {GOOD}", (
        f"code {first} {'with one message' if one_message else 'WITHOUT A GOOD MESSAGE'}; "
        f"{half or 'nothing'} half-written; then {code}; {same(stage, reference)}"
    )


@contextlib.contextmanager
def mounted(option: str, *folders: Path) -> Iterator[bool]:
    """Put small file systems over folders."""
    done = []
    try:
        for folder in folders:
            command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                done.append(folder)
        yield len(done) == len(folders)
    finally:
        for folder in done:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def truncated_shard(reference: Reference) -> tuple[str, str]:
    """the prepared store has lost the end of a file, then it is whole"""
    stage = Stage(reference.folder, "truncated")
    stage.dataset = stage.place / "data"
    shutil.copytree(reference.folder / "data", stage.dataset)
    shard = max(stage.dataset.rglob("*.h5"), key=lambda path: path.stat().st_size)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(reference.rng.uniform(0.3, 0.9) * len(whole))])
    first = stage.run()
    named = shard.name in stage.log and "Traceback" not in stage.log
    half = stage.half_written()
    shard.write_bytes(whole)
    code = stage.run()
    return f"code 2, the file is named; nothing half-written; then 0; {GOOD}", (
        f"code {first}, the file is {'named' if named else 'NOT NAMED'}; {half or 'nothing'} half-written; "
        f"then {code}; {same(stage, reference)}"
    )


def missing_gpu(reference: Reference) -> tuple[str, str]:
    """a GPU is asked for (POINTLOOM_DEVICE=cuda) where there is none"""
    stage = Stage(reference.folder, "gpu")
    first = stage.run(POINTLOOM_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    said = "asks for a GPU" in stage.log and "Traceback" not in stage.log
    code = stage.run(POINTLOOM_DEVICE="cpu")
    return f"code 2 with a message, then on the CPU 0; {GOOD}", (
        f"code {first} {'with' if said else 'WITHOUT'} a message, then on the CPU {code}; {same(stage, reference)}"
    )


def tracking_down(reference: Reference) -> tuple[str, str]:
    """the tracking server is down while training, and back for the next run of the stage"""
    port = free_port()
    stage = Stage(reference.folder, "down", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    first = timed(stage, reference)
    with tracking_server(stage.place, port):
        return after_trouble(stage, first, f"http://127.0.0.1:{port}")


def tracking_slow(reference: Reference) -> tuple[str, str]:
    """every answer of the tracking server takes 3 s or does not come; the next run has a quick one"""
    inner, outer = free_port(), free_port()
    stage = Stage(reference.folder, "slow", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{outer}")
    with tracking_server(stage.place, inner), slow_proxy(outer, inner, reference.rng) as slow:
        first = timed(stage, reference)
        slow.clear()
        return after_trouble(stage, first, f"http://127.0.0.1:{inner}")


def timed(stage: Stage, reference: Reference) -> str:
    started = time.monotonic()
    code = stage.run()
    stalled = time.monotonic() - started > reference.training_s + STALL_S
    bits = "same bits" if stage.weights() == reference.weights else "OTHER WEIGHTS"
    return f"code {code}, {'STALLED' if stalled else 'not stalled'}, {bits}"


def after_trouble(stage: Stage, first: str, uri: str) -> tuple[str, str]:
    """Run the stage once more, whose sender also sends what was left, and look at both runs."""
    stage.run()
    deadline = time.monotonic() + 120
    while list((stage.state / "tracking").glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    return "code 0, not stalled, same bits; afterwards both runs have metrics each once", (
        f"{first}; afterwards both runs have metrics {stage.recorded(uri, finished=2)}"
    )


FAULTS: tuple[Callable[[Reference], tuple[str, str]], ...] = (
    killed, killed_while_writing, preempted, lost_worker, other_world_size, file_too_large, full_disk, read_only,
    truncated_shard, missing_gpu, tracking_down, tracking_slow,
)  # fmt: skip


def make_reference(folder: Path, rng: random.Random) -> Reference:
    prepare(folder)
    one, two = Stage(folder, "reference"), Stage(folder, "reference-two")
    started = time.monotonic()
    if one.run() or one.recorded() != "each once":
        raise click.ClickException(f"the run without a fault has failed:\n{one.log}")
    training_s = time.monotonic() - started
    if two.run(processes=2):
        raise click.ClickException(f"two processes without a fault have failed:\n{two.log}")
    weights, weights_of_two = one.weights(), two.weights()
    assert weights is not None
    assert weights_of_two is not None
    return Reference(folder, weights, one.losses(), weights_of_two, training_s, rng)


@click.command()
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments at which things break.")
@click.option("--only", multiple=True, type=click.Choice([fault.__name__ for fault in FAULTS]), help="Some of them.")
def main(seed: int, only: tuple[str, ...]) -> None:
    """Inject every fault and print what came of it."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="pointloom-faults-") as folder:
        reference = make_reference(Path(folder), random.Random(seed))
        click.echo(f"{EPOCHS} epochs; without a fault {reference.training_s:.0f} s; seed {seed}\n")
        click.echo("| injected | expected | observed | ok |\n|---|---|---|---|")
        for fault in FAULTS:
            if only and fault.__name__ not in only:
                continue
            expected, observed = fault(reference)
            if observed != expected:
                click.echo(reference.last_log(), err=True)
            failed += observed != expected
            shown = "as expected" if observed == expected else observed
            click.echo(f"| {fault.__doc__} | {expected} | {shown} | {'yes' if observed == expected else '**no**'} |")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
