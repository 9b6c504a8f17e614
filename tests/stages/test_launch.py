"""A training stage is one command, however many processes it takes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pointloom.errors import ParamsError
from pointloom.stages import STAGES, launch
from pointloom.stages.launch import command, run_stage, wanted_processes
from pointloom.stages.pretrain_methods import MAEParams
from pointloom.stages.read_params import read_params
from pointloom.stages.signature import read_signature
from tests.stages.test_training import mae, workspace

__all__ = ["workspace"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POINTLOOM_PROCESSES", "POINTLOOM_TRAINJOB", "PET_NNODES", "RANK"):
        monkeypatch.delenv(name, raising=False)


def test_arguments_give_back_the_same_parameters_and_paths(tmp_path: Path) -> None:
    signature = read_signature("pretrain", STAGES["pretrain"])
    words = command(signature, mae(), {"dataset": tmp_path / "a b", "state": Path("state")})
    assert words[0] == "pretrain"
    assert read_params(signature.params, words[2]) == mae()
    assert words[3:] == ["--dataset", str(tmp_path / "a b"), "--state", "state"]


def test_only_training_stages_are_done_by_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int | None]] = []
    monkeypatch.setattr(launch, "start_processes", lambda words, processes: started.append((words[0], processes)))
    ran: list[str] = []
    for name, function in STAGES.items():
        signature = read_signature(name, function)
        object.__setattr__(signature, "function", lambda *_, name=name, **__: ran.append(name))
        monkeypatch.setenv("POINTLOOM_PROCESSES", "3")
        run_stage(signature, mae(), {})
        monkeypatch.setenv("PET_NNODES", "2")  # in a pod of a TrainJob
        run_stage(signature, mae(), {})
        monkeypatch.delenv("PET_NNODES")
        monkeypatch.setenv("RANK", "1")  # in one of the processes
        run_stage(signature, mae(), {})
        monkeypatch.delenv("RANK")
    assert started == [(name, count) for name in ("pretrain", "align", "distill") for count in (3, None)]
    assert ran.count("pretrain") == 1
    assert ran.count("finetune") == 3


@pytest.mark.parametrize("text", ["many", "0", "-1"])
def test_number_of_processes_must_be_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLOOM_PROCESSES", text)
    with pytest.raises(ParamsError, match=f"POINTLOOM_PROCESSES={text}: expected a number"):
        wanted_processes()


def start(root: Path, name: str, params: MAEParams, **environment: str) -> subprocess.Popen[str]:
    words = ["pretrain", "--params", params.model_dump_json(), "--dataset", str(root / "data")]
    words += ["--encoder", str(root / "models" / name), "--metrics", str(root / f"{name}.json")]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POINTLOOM_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "pointloom.cli", *words, "--state", str(root / "state")], cwd=root, text=True,
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_state(root: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not list(root.glob("state/pretrain/*/last.pt")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def losses(root: Path, name: str) -> list[float]:
    return np.genfromtxt(root / "models" / name / "curves.csv", delimiter=",", names=True)["loss"].tolist()


@pytest.mark.slow
def test_stage_in_two_processes_writes_what_one_writes_and_stops_and_goes_on_together(workspace: Path) -> None:
    """SIGTERM to the command ends both processes at one step with code 75; one process finishes what two have begun."""
    params = mae(epochs=6)
    whole = start(workspace, "one", params)
    _, said = whole.communicate(timeout=300)
    assert whole.returncode == 0, said
    first = start(workspace, "several", params, POINTLOOM_PROCESSES="2", POINTLOOM_SAVE_EVERY_S="0")
    wait_for_state(workspace, first)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 75, said
    assert not (workspace / "models" / "several").exists()
    second = start(workspace, "several", params)
    _, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert "resuming at epoch" in said
    assert losses(workspace, "several") == pytest.approx(losses(workspace, "one"), rel=1e-3)
    files = {path.name for path in (workspace / "models" / "one").iterdir()}
    assert {path.name for path in (workspace / "models" / "several").iterdir()} == files
    card = json.loads((workspace / "models" / "several" / "encoder.json").read_text())
    assert card["params"]["batch_size"] == 8


@pytest.mark.slow
def test_processes_do_not_outlive_a_command_that_is_killed(workspace: Path) -> None:
    params = mae(epochs=500, seed=7)
    first = start(workspace, "killed", params, POINTLOOM_PROCESSES="2", POINTLOOM_SAVE_EVERY_S="0")
    wait_for_state(workspace, first)
    workers = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs([worker for worker in workers if "pointloom" in worker.cmdline()], timeout=60)
    assert not alive


@pytest.mark.slow
def test_error_for_people_keeps_its_exit_code_and_is_not_tried_again(workspace: Path) -> None:
    process = start(workspace, "wrong", mae(batch_size=2), POINTLOOM_PROCESSES="3")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "a batch of 2 cannot be divided among 3 processes; raise batch_size" in said
    assert "started again" not in said
