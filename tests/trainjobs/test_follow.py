"""A TrainJob is started once, followed to its end and cleaned up, over real HTTP, whatever the server does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointloom.trainjobs.api import ApiError, KubernetesApi
from pointloom.trainjobs.follow import TrainJob, comparable
from tests.trainjobs.fake_cluster import JOBS, FakeCluster

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = {"metadata": {"name": "pointloom-pretrain-1"}, "spec": {}}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster()
    made.log = [
        ("2026-01-01T00:00:01Z", "epoch 1"),
        ("2026-01-01T00:00:01.5Z", "epoch 2"),
        ("2026-01-01T00:00:03Z", "epoch 3"),
    ]
    yield made
    made.close()


def job(cluster: FakeCluster, shown: list[str] | None = None, **more: Any) -> TrainJob:
    api = KubernetesApi(cluster.address, namespace="team", patience_s=1.0, first_wait_s=0.01, **more)
    return TrainJob(api, MANIFEST, show=(shown if shown is not None else []).append, poll_s=0.02)


def test_job_is_created_followed_and_left_for_its_outputs(cluster: FakeCluster) -> None:
    shown: list[str] = []
    job(cluster, shown).run()
    assert shown == ["epoch 1", "epoch 2", "epoch 3"]
    assert cluster.count("POST", JOBS) == 1
    assert list(cluster.jobs) == ["pointloom-pretrain-1"]


def test_job_of_an_earlier_attempt_is_adopted(cluster: FakeCluster) -> None:
    cluster.jobs["pointloom-pretrain-1"] = MANIFEST
    job(cluster).run()
    assert cluster.count("POST", JOBS) == 0


def test_request_that_worked_and_was_answered_with_an_error_starts_nothing_twice(cluster: FakeCluster) -> None:
    cluster.faults = [(500, "POST after")]
    job(cluster).run()
    assert cluster.count("POST", JOBS) == 2
    assert len(cluster.jobs) == 1


def test_log_that_is_cut_is_shown_once_and_completely(cluster: FakeCluster) -> None:
    shown: list[str] = []
    cluster.lines_per_answer = 1
    cluster.faults = [(500, "GET .*/log"), (404, "GET .*/log")]
    job(cluster, shown).run()
    assert shown == ["epoch 1", "epoch 2", "epoch 3"]
    assert cluster.count("GET", "/log") >= 5


def test_trouble_of_the_server_is_waited_for(cluster: FakeCluster) -> None:
    cluster.faults = [(500, "GET"), (503, "GET"), (429, "POST"), (500, "GET .*/pods$")]
    job(cluster).run()
    assert cluster.faults == []


def test_trouble_that_does_not_end_is_an_error_and_the_job_stays(cluster: FakeCluster) -> None:
    cluster.ends = None
    started = job(cluster)
    started.start()
    cluster.faults = [(500, "GET")] * 500
    with pytest.raises(ApiError, match=r"GET .*trainjobs.* fails since 1 s \(status 500"):
        started.run()
    assert len(cluster.jobs) == 1
    cluster.close()
    with pytest.raises(ApiError, match="ConnectionError"):
        started.run()


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_an_error_at_once_that_says_which_role_is_missing(cluster: FakeCluster, status: int) -> None:
    cluster.faults = [(status, "POST")]
    with pytest.raises(ApiError, match=rf"refused with status {status} .*create, get, delete on trainjobs"):
        job(cluster).run()
    assert cluster.count("POST", JOBS) == 1


def test_token_is_read_again_when_the_cluster_has_changed_it(cluster: FakeCluster, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    cluster.token = "first"
    followed = job(cluster, token=token)
    followed.start()
    token.write_text("second\n")
    cluster.token = "second"
    followed.run()
    cluster.token = "third"
    with pytest.raises(ApiError, match="status 401"):
        followed.run()


@pytest.mark.parametrize(("exit_code", "expected"), [(2, 2), (75, 75), (1, 1), (137, 1)])
def test_failed_job_ends_the_step_with_the_code_that_helps_most_and_is_deleted(
    cluster: FakeCluster, caplog: pytest.LogCaptureFixture, exit_code: int, expected: int
) -> None:
    cluster.ends, cluster.exit_code = "Failed", exit_code
    with pytest.raises(SystemExit) as ended:
        job(cluster).run()
    assert ended.value.code == expected
    assert cluster.jobs == {}
    assert "JobsFailed: jobset failed due to one or more job failures" in caplog.text


def test_failed_job_of_an_earlier_attempt_is_replaced(cluster: FakeCluster) -> None:
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}
    cluster.jobs["pointloom-pretrain-1"] = {**MANIFEST, "status": failed}
    job(cluster).run()
    assert cluster.count("DELETE", JOBS) == 1
    assert cluster.count("POST", JOBS) == 1


def test_job_that_somebody_else_deletes_is_a_preemption(cluster: FakeCluster) -> None:
    cluster.ends = None
    followed = job(cluster)
    followed.start()
    cluster.jobs.clear()
    with pytest.raises(SystemExit) as ended:
        followed._follow()
    assert ended.value.code == 75


def test_times_of_lines_are_in_order() -> None:
    stamps = [
        "2026-01-01T00:00:01Z",
        "2026-01-01T00:00:01.000000001Z",
        "2026-01-01T00:00:01.5Z",
        "2026-01-01T00:00:02Z",
    ]
    assert sorted(reversed(stamps), key=comparable) == stamps
    assert comparable("Traceback") == ""


def test_step_that_is_asked_to_end_deletes_its_job(cluster: FakeCluster, tmp_path: Path) -> None:
    """The command itself, in a process of its own, as a pod of a pipeline runs it."""
    cluster.ends = None
    process = subprocess.Popen(
        stage_command(tmp_path),
        cwd=tmp_path,
        env=stage_environment(cluster, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (cluster.jobs and cluster.count("GET", "/log")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (manifest,) = cluster.jobs.values()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert cluster.jobs == {}
    assert manifest["spec"]["trainer"]["args"][0] == "pretrain"


def stage_command(folder: Path) -> list[str]:
    """Return a step of a pipeline whose dataset lies outside of the shared volume."""
    from tests.stages.test_training import mae

    (folder / "data").mkdir(exist_ok=True)
    (folder / "shared").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pointloom.cli", "pretrain", "--params", mae().model_dump_json()]
    for name in ("dataset", "encoder", "metrics"):
        command += [f"--{name}", {"dataset": "data", "encoder": "models/mae", "metrics": "mae.json"}[name]]
    return [*command, "--state", str(folder / "shared" / "state")]


def stage_environment(cluster: FakeCluster, folder: Path, **changed: Any) -> dict[str, str]:
    settings = {
        "image": "registry/pointloom-train:1", "runtime": "torch-distributed", "nodes": 2, "processes": 1, "gpus": 0,
        "accelerator": "nvidia.com/gpu", "cpu": "1", "memory": "1Gi", "shm": None, "claim": "pointloom",
        "mount": str(folder / "shared"), "tolerations": [], "node_selector": {}, "env": {}, "secrets": [],
        "pull_secrets": [], "timeout_s": 600,
    }  # fmt: skip
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POINTLOOM_"))}
    return {
        **kept, "PYTHONPATH": str(ROOT), "POINTLOOM_TRAINJOB": json.dumps(settings | changed),
        "POINTLOOM_KUBERNETES_API": cluster.address, "POINTLOOM_NAMESPACE": "team",
    }  # fmt: skip
