"""What doctor says about GPUs that were asked for, resume state and the permission to start TrainJobs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pointloom import training_checks
from pointloom.training_checks import check_devices, check_state, check_train_jobs
from tests.trainjobs.fake_cluster import FakeCluster


@pytest.fixture(autouse=True)
def _outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "POINTLOOM_DEVICE",
        "POINTLOOM_PROCESSES",
        "POINTLOOM_KUBERNETES_API",
        "KUBERNETES_SERVICE_HOST",
        "PET_NNODES",
    )
    for name in names:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    made = FakeCluster()
    monkeypatch.setenv("POINTLOOM_KUBERNETES_API", made.address)
    monkeypatch.setenv("POINTLOOM_NAMESPACE", "team")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("variables", "gpus", "expected"),
    [
        ({}, 0, []),
        (
            {"POINTLOOM_DEVICE": "cuda"},
            0,
            [("bad", "POINTLOOM_DEVICE=cuda, and torch sees no GPU; give"), ("ok", "1 ")],
        ),
        ({"POINTLOOM_DEVICE": "cuda"}, 1, [("ok", "cuda"), ("ok", "1 ")]),
        ({"POINTLOOM_DEVICE": "gpu"}, 1, [("bad", "expected cuda or cpu"), ("ok", "1 ")]),
        ({"POINTLOOM_PROCESSES": "4"}, 2, [("ok", "the best"), ("bad", "POINTLOOM_PROCESSES=4 and 2 GPUs")]),
        ({"POINTLOOM_PROCESSES": "4"}, 0, [("ok", "the best"), ("ok", "4 train together")]),
        ({"POINTLOOM_PROCESSES": "x"}, 0, [("ok", "the best"), ("bad", "expected a number")]),
    ],
)
def test_gpus_that_were_asked_for_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], gpus: int, expected: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = list(check_devices())
    assert [check.state for check in found] == [state for state, _ in expected]
    assert all(text in check.text for check, (_, text) in zip(found, expected, strict=True))


def test_resume_state_must_be_writable_and_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_state(tmp_path).state in {"ok", "info"}
    monkeypatch.setattr(training_checks, "ROOM_BYTES", 1e18)
    assert check_state(tmp_path).state == "info"
    assert "twice while it is replaced" in check_state(tmp_path).text
    monkeypatch.setattr(training_checks.os, "access", lambda *_: False)
    assert check_state(tmp_path).state == "bad"


def test_permissions_are_asked_one_by_one_and_missing_ones_are_named(cluster: FakeCluster) -> None:
    (check,) = check_train_jobs()
    assert check.state == "ok"
    cluster.allowed = lambda asked: asked["verb"] != "delete" and asked["subresource"] != "log"
    (check,) = check_train_jobs()
    assert check.state == "bad"
    assert "may not delete trainjobs, get pods/log" in check.text
    assert "docs/kubeflow.md" in check.text


def test_silent_api_server_is_said_and_no_cluster_is_no_check(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.close()
    monkeypatch.setattr(training_checks, "PATIENCE_S", 0.1)
    (check,) = check_train_jobs()
    assert check.state == "bad"
    assert "ConnectionError" in check.text
    monkeypatch.delenv("POINTLOOM_KUBERNETES_API")
    assert list(check_train_jobs()) == []
