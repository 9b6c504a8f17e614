"""Independent jobs: in worker processes and in this one, with the same results."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from pointloom.data.replace import replaced_folder
from pointloom.errors import PointloomError, WorkspaceError
from pointloom.train.parallel import Advance, run_jobs
from pointloom.train.state import resume_state

CPU = torch.device("cpu")


def square(job: int, advance: Advance) -> tuple[int, int]:
    advance()
    time.sleep(0.2)
    return job**2, os.getpid()


def fail(job: int, advance: Advance) -> None:
    raise WorkspaceError(f"job {job} cannot be done")


def stop(job: Path, advance: Advance) -> None:
    if job.name == "first":
        raise SystemExit(75)
    time.sleep(30)
    job.touch()


def be_killed(job: Path, advance: Advance) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_job_comes_back_with_its_result(num_workers: int) -> None:
    found = dict(run_jobs(square, [1, 2, 3], device=CPU, num_workers=num_workers, total_steps=3, label="squares"))
    assert {job: value for job, (value, _) in found.items()} == {1: 1, 2: 4, 3: 9}
    processes = {pid for _, pid in found.values()}
    assert (os.getpid() in processes) == (num_workers == 1)


def test_error_of_a_job_arrives_as_it_was_raised() -> None:
    with pytest.raises(WorkspaceError, match=r"job [56] cannot be done"):
        list(run_jobs(fail, [5, 6], device=CPU, num_workers=2, total_steps=2, label="failing"))


@pytest.mark.parametrize("function", [stop, be_killed])
def test_worker_that_ends_ends_the_others_with_a_clear_error(
    function: Callable[[Path, Advance], None], tmp_path: Path
) -> None:
    """A worker that was asked to stop leaves: one that waited for more work has kept its parent from ending."""
    jobs = [tmp_path / "first", tmp_path / "second"]
    with pytest.raises(PointloomError, match=r"two: a worker process was killed .* continues from there"):
        list(run_jobs(function, jobs, device=CPU, num_workers=2, total_steps=2, label="two"))
    assert not jobs[1].exists(), "the end was noticed only when the other job had ended"
    deadline = time.monotonic() + 30  # the pool's thread joins them too: one join of ours may come back too early
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_state_of_other_settings_is_another_folder_and_goes_away_on_success(tmp_path: Path) -> None:
    with resume_state(tmp_path, stage="x", shaped_by={"lr": 1}) as first:
        (first / "kept").touch()
        with resume_state(tmp_path, stage="x", shaped_by={"lr": 2}) as second:
            assert first != second
    assert not first.exists()


def test_failed_stage_keeps_its_state(tmp_path: Path) -> None:
    with suppress(KeyError), resume_state(tmp_path, stage="x", shaped_by={}) as folder:
        (folder / "kept").touch()
        raise KeyError
    with resume_state(tmp_path, stage="x", shaped_by={}) as again:
        assert (again / "kept").exists()


def test_same_stage_twice_at_once_is_refused(tmp_path: Path) -> None:
    with (
        resume_state(tmp_path, stage="x", shaped_by={}),
        pytest.raises(WorkspaceError, match="already running"),
        resume_state(tmp_path, stage="x", shaped_by={}),
    ):
        pass


def test_output_folder_is_the_old_one_or_the_complete_new_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replaced_folder(target) as folder:
        (folder / "a").write_text("old")
    with suppress(KeyError), replaced_folder(target) as folder:
        (folder / "a").write_text("half")
        raise KeyError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
