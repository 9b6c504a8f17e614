"""Runs of a training stage for ``benchmarks.faults``: real processes, and what they have left behind."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pointloom.workspace import template

ROOT = Path(__file__).resolve().parents[1]
OBJECTS, EPOCHS = 96, 8
LIMIT_S = 600.0


class Stage:
    """``pointloom pretrain`` on a few generated objects.

    Args:
        folder: Where everything lies; the store in it is shared by all runs.
        name: Name of this series of attempts: its encoder, its resume state, its MLflow database.
        environment: Variables of all its attempts.
    """

    last_log = ""

    def __init__(self, folder: Path, name: str, **environment: str) -> None:
        self.folder = folder
        self.place = folder / name
        self.place.mkdir()
        self.encoder = self.place / "models" / "mae"
        self.metrics = self.place / "reports" / "mae.json"
        self.state = self.place / "state"
        self.tracking = f"sqlite:///{self.place / 'mlflow.db'}"
        self.environment = environment
        self.dataset = folder / "data"
        self.log = ""
        self._written, self._progress = 0, (0, 0)

    def start(
        self, *, processes: int = 1, before: Callable[[], None] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start an attempt."""
        values = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "MLFLOW_TRACKING_URI": self.tracking,
            "POINTLOOM_SAVE_EVERY_S": "0.2",
            "POINTLOOM_PROCESSES": str(processes),
        }
        command = [sys.executable, "-m", "pointloom.cli", "pretrain", "--params", json.dumps(params())]
        command += ["--dataset", str(self.dataset), "--encoder", str(self.encoder), "--metrics", str(self.metrics)]
        command += ["--state", str(self.state)]
        values = clean() | values | self.environment | environment
        return subprocess.Popen(
            command, cwd=self.place, env=values, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=before, start_new_session=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> int:
        """Wait for the end of an attempt and return its exit code."""
        self.log, _ = process.communicate(timeout=LIMIT_S)
        Stage.last_log = self.log
        return process.returncode

    def run(self, **options: Any) -> int:
        """Run an attempt to its end and return its exit code."""
        return self.finish(self.start(**options))

    def saved(self) -> Path | None:
        """Return the state that was saved last."""
        return next(iter(self.state.glob("pretrain/*/last.pt")), None)

    def wait_for(self, process: subprocess.Popen[str], condition: Callable[[], object]) -> bool:
        """Wait for something to happen; False when the attempt has ended before."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.place.name}: it did not happen in {LIMIT_S:.0f} s")
            time.sleep(0.01)
        return True

    def progress(self) -> tuple[int, int]:
        """Return the epoch and the step that the state that was saved last goes on from."""
        import torch

        path = self.saved()
        written = path.stat().st_mtime_ns if path else 0
        if path and written != self._written:
            found = torch.load(path, weights_only=True, map_location="cpu")["progress"]
            self._written, self._progress = written, (found["epoch"], found["step"])
        return self._progress

    def interrupt(self, number: int, *, after: tuple[int, int], processes: int = 1) -> int:
        """Start an attempt, send it a signal once an epoch and step have been saved, and return its exit code."""
        process = self.start(processes=processes)
        if self.wait_for(process, lambda: self.progress() >= after):
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        return self.finish(process)

    def weights(self) -> str | None:
        """Return the digest of the encoder's weights, None where there is no finished encoder."""
        file = self.encoder / "encoder.safetensors"
        complete = file.is_file() and self.metrics.is_file()
        return hashlib.sha256(file.read_bytes()).hexdigest() if complete else None

    def losses(self) -> list[float]:
        """Return the loss of every epoch."""
        with (self.encoder / "curves.csv").open(encoding="utf-8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    def half_written(self) -> list[str]:
        """Return what lies at the place of an output and is not complete."""
        there = [path for path in (self.encoder, self.metrics) if path.exists()]
        return [] if self.weights() or not there else [str(path.relative_to(self.place)) for path in there]

    def recorded(self, uri: str | None = None, *, finished: int = 1) -> str:
        """Return ``each once`` if so many runs have finished with every epoch's loss once, else what is wrong."""
        from mlflow.tracking import MlflowClient

        if uri is None and not (self.place / "mlflow.db").is_file():
            return "nowhere: there is no database"
        client = MlflowClient(uri or self.tracking)
        experiment = client.get_experiment_by_name("pointloom")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        ended = [run for run in runs if run.info.status == "FINISHED"]
        if len(ended) != finished:
            return f"{len(ended)} finished runs of {len(runs)}"
        for run in runs:
            points = [point for point in client.get_metric_history(run.info.run_id, "loss") if point.step > 0]
            steps = sorted(point.step for point in points)
            if len(steps) != len(set(steps)):
                return f"doubled: steps {steps} in a run that is {run.info.status}"
            if run in ended and steps != list(range(1, EPOCHS + 1)):
                return f"lost: steps {steps} of {EPOCHS}"
            expected = self.losses()
            if any(abs(point.value - expected[point.step - 1]) > 1e-9 for point in points):
                return f"other losses than in the curve, in a run that is {run.info.status}"
        return "each once"


def params() -> dict[str, Any]:
    """Return the parameters of profile smoke, with more and smaller epochs."""
    found = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))["pretrain"]["mae"]
    found["optim"]["precision"] = "fp32"
    found["encoder_args"] = {"drop_path": 0.1}
    return {**found, "epochs": EPOCHS, "batch_size": 8}


def clean() -> dict[str, str]:
    """Return the environment without what this shell may have set."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POINTLOOM_", "PET_"))}


def prepare(folder: Path) -> None:
    """Generate the objects."""
    values = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))["prepare"] | {"num_objects": OBJECTS}
    (folder / "raw").mkdir()
    command = [sys.executable, "-m", "pointloom.cli", "prepare", "--params", json.dumps(values), "--source", "raw"]
    command += ["--dataset", "data", "--metrics", "prepare.json"]
    environment = clean() | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
