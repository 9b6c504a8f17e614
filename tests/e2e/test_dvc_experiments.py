"""Experiments of DVC: one with another value, and a queue of several, each with its own numbers."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pointloom.workspace import WorkspaceChoices, init_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STAGE = "pretrain@mae"


def dvc(folder: Path, *words: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_"))}
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True, check=False,
        env=kept | identity | {"PATH": programs, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    init_workspace(WorkspaceChoices(folder, profile="smoke"))
    text = (folder / "params.yaml").read_text()
    smaller = {
        "num_objects: 160": "num_objects: 12", "num_points: 1024": "num_points: 64", "pool: 1024": "pool: 64",
        "num_points: 256": "num_points: 64", "batch_size: 16": "batch_size: 4", "    epochs: 2": "    epochs: 1",
    }  # fmt: skip
    for old, new in smaller.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "Smaller"], cwd=folder, check=True)
    return folder


def test_experiments_have_the_values_that_were_asked_for_and_numbers_of_their_own(workspace: Path) -> None:
    dvc(workspace, "exp", "run", "--name", "long", "-S", "pretrain.mae.epochs=2", STAGE)
    sweep = ("-S", "pretrain.mae.optim.lr=0.01,0.02", "-S", "pretrain.mae.epochs=1")
    dvc(workspace, "exp", "run", "--queue", *sweep, STAGE)
    dvc(workspace, "exp", "run", "--run-all")
    rows = csv.DictReader(io.StringIO(dvc(workspace, "exp", "show", "--csv")))
    found = {
        (float(row["pretrain.mae.optim.lr"]), int(row["pretrain.mae.epochs"])): float(row["metrics.loss"])
        for row in rows if row["rev"] not in {"main", "workspace"}
    }  # fmt: skip
    assert set(found) == {(0.001, 2), (0.01, 1), (0.02, 1)}
    assert len(set(found.values())) == 3
    assert recorded_rates(workspace) == ["0.001", "0.01", "0.02"], "queued experiments run in copies, which are deleted"


def recorded_rates(workspace: Path) -> list[str]:
    """Learning rate of every training in the workspace's MLflow database."""
    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'ws'")
    params = [run.data.params for run in client.search_runs([experiment.experiment_id])]
    return sorted(param["optim.lr"] for param in params if "optim.lr" in param)
