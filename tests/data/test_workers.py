import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pointloom.data.quarantine import RejectedError
from pointloom.data.workers import available_cores, interrupts_deferred, map_in_workers
from pointloom.errors import BackendError


def task(item: str) -> str:
    """What the items of these tests ask for."""
    kind, _, value = item.partition(":")
    if kind == "sleep":
        time.sleep(float(value))
    elif kind == "reject":
        raise RejectedError("empty", "nothing in it")
    elif kind == "bug":
        raise KeyError("surprise")
    elif kind == "die":
        os._exit(3)
    elif kind == "abort":
        os.abort()
    elif kind == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(20_000_000))
            time.sleep(0.01)
    return f"{item} {os.environ['OMP_NUM_THREADS']}"


def fail_to_start() -> None:
    os._exit(7)


def test_every_misbehaviour_costs_one_item_only() -> None:
    items = ["a", "sleep:60", "reject", "bug", "die", "abort", "eat", "b", "c"]
    outcomes = {o.item: o for o in map_in_workers(task, items, num_workers=3, timeout_s=6.0, max_memory_gb=0.4)}
    assert set(outcomes) == set(items)
    assert [outcomes[name].result for name in ("a", "b", "c")] == ["a 1", "b 1", "c 1"]
    failures = {name: outcome.failure for name, outcome in outcomes.items() if outcome.failure is not None}
    assert {name: reason for name, (reason, _) in failures.items()} == {
        "sleep:60": "timeout",
        "reject": "empty",
        "bug": "unreadable",
        "die": "crashed",
        "abort": "crashed",
        "eat": "memory",
    }
    assert failures["die"][1] == "the loader ended its process (exit code 3)"
    assert failures["abort"][1] == "the loader ended its process (signal SIGABRT)"
    assert failures["bug"][1] == "KeyError: 'surprise'"
    assert "raise timeout_s" in failures["sleep:60"][1]
    assert multiprocessing.active_children() == []


def test_stopping_early_leaves_no_process_behind() -> None:
    outcomes = map_in_workers(task, ["a", "sleep:60", "sleep:60"], num_workers=2, timeout_s=90.0, max_memory_gb=1.0)
    assert next(outcomes).item == "a"
    outcomes.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_workers_that_cannot_start_are_an_error_and_no_endless_loop() -> None:
    outcomes = map_in_workers(task, ["a"], num_workers=1, timeout_s=9.0, max_memory_gb=1.0, warm_up=fail_to_start)
    with pytest.raises(BackendError, match=r"end at their start \(exit code 7\)"):
        list(outcomes)


def test_no_items_start_no_workers() -> None:
    assert list(map_in_workers(task, [], num_workers=0, timeout_s=1.0, max_memory_gb=1.0)) == []
    assert available_cores() >= 1


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "from test_workers import task\nfrom pointloom.data.workers import map_in_workers\n"
        "if __name__ == '__main__':\n"
        "    for o in map_in_workers(task, ['a', 'sleep:100'], num_workers=1, timeout_s=99.0, max_memory_gb=1.0):\n"
        "        print(o.item, flush=True)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "a\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signal_that_comes_while_children_start_is_answered_when_they_have(
    number: signal.Signals, error: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise SystemExit

    steps = []

    def start() -> None:
        with interrupts_deferred():
            signal.raise_signal(number)
            steps.append("children have started")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(error):
            start()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == ["children have started"]


FIRST_CHILD = """
import multiprocessing, pathlib, signal, time
from pointloom.data.workers import interrupts_deferred
if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    with interrupts_deferred():
        child.start()
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    [blocked] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk")]
    print(bool(blocked >> (signal.SIGINT - 1) & 1))
    child.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_does_not_reach_the_very_first_child(tmp_path: Path) -> None:
    """Its start also starts multiprocessing's resource tracker, which unblocks signals in this process."""
    program = tmp_path / "first.py"
    program.write_text(FIRST_CHILD)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
