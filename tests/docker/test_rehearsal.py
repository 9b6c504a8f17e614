"""The pipeline in containers beside the same stages run by ``pointloom run``: equal data, nearly equal learning."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.workspace import template
from tests.docker.conftest import ROOT, TAG
from tests.e2e.processes import environment, pointloom

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def small_params() -> dict[str, Any]:
    """Profile smoke with few objects, and one encoder that is pre-trained, probed and fine-tuned."""
    params: dict[str, Any] = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))
    params["prepare"] |= {"num_objects": 60, "num_workers": 1}
    for section in ("pretrain", "finetune", "probe"):
        params[section] = {"mae": params[section]["mae"]}
    params["finetune"]["mae"] |= {"seeds": [0], "label_epochs": {1.0: 1}, "votes": 1}
    params["report"] |= {"baseline": "mae", "probe_baseline": "mae", "detail": ["mae"], "tsne_objects": 20}
    return params


@pytest.fixture(scope="module")
def artifacts(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the containers have made."""
    pytest.importorskip("kfp", reason="kfp is in an environment of its own: make test-docker")
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params()))
    command = [sys.executable, "-m", "pipelines.run", "pretrain", "--params", str(folder / "params.yaml")]
    command += ["--folder", str(folder), "--tag", TAG]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    page = Path(done.stdout.splitlines()[-1])
    assert page.is_relative_to(folder)
    assert "Smoke test" in page.read_text()
    return page.parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the shell has made of the same parameters."""
    folder = tmp_path_factory.mktemp("shell") / "workspace"
    assert pointloom("init", str(folder), "--profile", "smoke", cwd=folder.parent).returncode == 0
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params()))
    done = pointloom("run", "--workspace", str(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def metrics_of(file: Path) -> dict[str, float]:
    numbers: dict[str, float] = json.loads(file.read_text())["metrics"]
    return numbers


def test_data_are_equal_to_the_bit(artifacts: Path, workspace: Path) -> None:
    ours, theirs = artifacts / "prepare" / "dataset", workspace / "data" / "objects"
    digests = [json.loads((folder / "dataset.json").read_text())["digest"] for folder in (ours, theirs)]
    assert digests[0] == digests[1]
    shards = sorted(path.relative_to(theirs) for path in theirs.rglob("*.h5"))
    assert shards
    for shard in shards:
        assert (ours / shard).read_bytes() == (theirs / shard).read_bytes(), shard


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "probe"])
def test_learning_is_equal_to_a_tolerance(artifacts: Path, workspace: Path, stage: str) -> None:
    found = metrics_of(artifacts / stage / "metrics")
    expected = metrics_of(workspace / "reports" / stage / "mae.json")
    assert found.keys() == expected.keys()
    answer = 0 if stage == "pretrain" else 10.0  # one of ten episodes' queries, in percent; two test objects of twenty
    results = [name for name in expected if not name.endswith("/std") and name != "percent_waiting_for_data"]
    for name in results:
        assert found[name] == pytest.approx(expected[name], rel=0.01, abs=answer), name


def test_everything_belongs_to_the_user(artifacts: Path) -> None:
    assert {path.stat().st_uid for path in artifacts.rglob("*")} == {os.getuid()}
