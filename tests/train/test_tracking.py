"""What reaches MLflow, and that nothing about MLflow can stop or slow a stage."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pointloom.stages.runs import stage_run
from pointloom.train.spool import RunStart, Tracker, TrackingTarget, new_key, spool_folder, tracking_target
from pointloom.train.tracking import Spool, close_as_killed, download_model, flatten, make_client, replay_left_behind

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID",
                 "POINTLOOM_PARENT_RUN_ID"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingTarget:
    """A local store in a folder whose name needs quoting; made once, because making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("a store")
    return TrackingTarget(f"sqlite:///{folder / 'mlflow.db'}", "shapes", str(folder / "mlartifacts"))


def start(target: TrackingTarget, **changes: Any) -> RunStart:
    values: dict[str, Any] = {"key": new_key(), "name": "pretrain/mae", "run_id": None, "parent_run_id": None}
    return RunStart(target=target, time=time.time(), **{**values, **changes})


def finished(target: TrackingTarget, run_id: str | None) -> Any:
    assert run_id is not None
    return make_client(target.uri).get_run(run_id)


def test_metrics_params_tags_and_artifacts_reach_a_local_store(store: TrackingTarget, tmp_path: Path) -> None:
    long_text = "x" * 7000
    figure = tmp_path / "curve.svg"
    figure.write_text("<svg/>")
    params = {"optim": {"lr": 0.001}, "seeds": [0, 1], "note": long_text}
    tracker = Tracker(start(store, params=params, tags={"stage": "pretrain"}), tmp_path)
    for step in range(50):
        tracker.log_metrics({"loss/total": 1 / (step + 1), "acc@1": 0.5}, step=step)
    tracker.log_artifact(figure, folder="figures")
    tracker.log_artifact(tmp_path / "never written")
    tracker.set_tags({"late": "yes"})
    run = finished(store, tracker.finish("FINISHED", max_wait_s=90.0))

    client = make_client(store.uri)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss/total")) == 50
    assert run.data.metrics["acc_1"] == 0.5
    assert run.data.params["optim.lr"] == "0.001"
    assert run.data.params["seeds"] == "[0, 1]"
    assert run.data.tags["late"] == "yes"
    assert [item.path for item in client.list_artifacts(run.info.run_id, "figures")] == ["figures/curve.svg"]
    whole = json.loads(Path(client.download_artifacts(run.info.run_id, "params.json", str(tmp_path))).read_text())
    assert whole["note"] == long_text
    assert list(tmp_path.glob("*.jsonl")) == list(tmp_path.glob("*.sent")) == []


def test_local_store_whose_maker_was_stopped_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.new").write_bytes(b"half a database")
    (tmp_path / "mlflow.db.new-journal").write_bytes(b"and its journal")
    target = TrackingTarget(f"sqlite:///{tmp_path / 'mlflow.db'}", "shapes", str(tmp_path / "mlartifacts"))
    tracker = Tracker(start(target), tmp_path)
    tracker.log_metrics({"loss": 1.0}, step=0)
    assert finished(target, tracker.finish("FINISHED", max_wait_s=60.0)).data.metrics == {"loss": 1.0}
    assert not (tmp_path / "mlflow.db.new").exists()


def test_run_becomes_child_of_the_named_parent(store: TrackingTarget, tmp_path: Path) -> None:
    parent = Tracker(start(store, name="run"), tmp_path)
    parent_id = parent.wait_for_run_id(90.0)
    child = Tracker(start(store, parent_run_id=parent_id), tmp_path)
    run = finished(store, child.finish("FINISHED"))
    assert parent.finish("FINISHED") == parent_id
    assert run.data.tags["mlflow.parentRunId"] == parent_id


class Params(BaseModel):
    lr: int = 2
    new: int = 3


def test_run_of_kubeflows_plugin_is_not_ended_and_keeps_its_params(
    store: TrackingTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(store.uri)
    owner = Tracker(start(store, params={"lr": 1}), tmp_path).finish("FINISHED", max_wait_s=90.0)
    assert owner is not None
    client.update_run(owner, status="RUNNING")
    given = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_RUN_ID": owner, "MLFLOW_EXPERIMENT_NAME": "not wanted"}
    for name, value in (given | {"MLFLOW_EXPERIMENT_ID": client.get_run(owner).info.experiment_id}).items():
        monkeypatch.setenv(name, value)
    with stage_run("align", params=Params(), inputs={}, metrics=tmp_path / "align.json", state=tmp_path) as run:
        run.summary({"loss": 0.5})
    deadline = time.monotonic() + 90
    while list((tmp_path / "tracking").glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.get_experiment_by_name("not wanted") is None
    run = client.get_run(owner)
    assert run.info.status == "RUNNING"
    assert run.data.metrics["loss"] == 0.5
    assert run.data.params["lr"] == "1"
    assert run.data.params["new"] == "3"
    assert run.data.tags["changed.lr"] == "2"


def test_attempts_that_share_a_run_tell_every_epoch_once(store: TrackingTarget, tmp_path: Path) -> None:
    owner = Tracker(start(store), tmp_path).finish("FINISHED", max_wait_s=90.0)
    for last in (2, 4):  # a resumed training tells its curve from the beginning
        attempt = Tracker(start(store, run_id=owner), tmp_path)
        for epoch in range(1, last + 1):
            attempt.log_metrics({"loss": 1 / epoch}, step=epoch)
        attempt.log_metrics({"accuracy": float(last)}, step=0)
        attempt.finish("FINISHED", max_wait_s=60.0)
    history = {name: make_client(store.uri).get_metric_history(owner, name) for name in ("loss", "accuracy")}
    assert [(point.step, point.value) for point in history["loss"]] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert [point.value for point in history["accuracy"]] == [2, 4]


def test_encoder_is_registered_with_its_card_and_alias(store: TrackingTarget, tmp_path: Path) -> None:
    folder = tmp_path / "mae"
    folder.mkdir()
    (folder / "README.md").write_text("# An encoder")
    (folder / "encoder.json").write_text("{}")
    for _ in range(2):
        tracker = Tracker(start(store), tmp_path)
        tracker.register_encoder(folder, name="mae")
        tracker.finish("FINISHED", max_wait_s=90.0)
    version = make_client(store.uri).get_model_version_by_alias("shapes-mae", "newest")
    assert (str(version.version), version.description) == ("2", "# An encoder")
    for uri in ("models:/shapes-mae@newest", "models:/shapes-mae/latest", f"runs:/{version.run_id}/encoder"):
        fetched = download_model(uri, tracking_uri=store.uri)
        assert sorted(path.name for path in fetched.iterdir()) == ["README.md", "encoder.json"]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_dead_server_costs_a_moment_and_events_are_kept(tmp_path: Path) -> None:
    dead = TrackingTarget(f"http://127.0.0.1:{closed_port()}", "shapes")
    tracker = Tracker(start(dead), tmp_path)
    began = time.perf_counter()
    for step in range(1000):
        tracker.log_metrics({"loss": 1.0}, step=step)
    assert time.perf_counter() - began < 2
    assert tracker.finish("FINISHED") is None
    events = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["metrics"] * 1000, "end"]


def test_silent_server_holds_the_end_of_a_stage_for_a_bounded_time(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = TrackingTarget(f"http://127.0.0.1:{silent.getsockname()[1]}", "shapes")
        tracker = Tracker(start(target), tmp_path)
        began = time.perf_counter()
        assert tracker.finish("FINISHED", max_wait_s=1.0) is None
        assert time.perf_counter() - began < 5
        assert tracker.sender is not None
        tracker.sender.kill()
        tracker.sender.wait()


def spool_for(store: TrackingTarget, folder: Path, lines: list[dict[str, Any]], **changes: Any) -> Path:
    from dataclasses import asdict

    path = folder / f"{new_key()}.jsonl"
    first = {"event": "start", **asdict(start(store, **changes))}
    path.write_text("".join(json.dumps({"time": time.time(), **line}) + "\n" for line in [first, *lines]))
    return path


def test_events_left_behind_are_sent_by_the_next_sender(store: TrackingTarget, tmp_path: Path) -> None:
    loss = {"event": "metrics", "step": 1, "values": {"loss": 2.0}}
    whole = spool_for(store, tmp_path, [loss, {"event": "end", "status": "FINISHED"}], key="left-1")
    killed = spool_for(store, tmp_path, [loss], key="left-2")
    with killed.open("a") as file:
        file.write('{"event": "metr')  # torn by the kill
    empty = tmp_path / "0.jsonl"
    empty.touch()
    replay_left_behind(tmp_path)
    client = make_client(store.uri)
    experiment = client.get_experiment_by_name("shapes").experiment_id
    for key, status in (("left-1", "FINISHED"), ("left-2", "KILLED")):
        (run,) = client.search_runs([experiment], f"tags.`pointloom.key` = '{key}'")
        assert run.info.status == status
        assert run.data.metrics == {"loss": 2.0}
    assert not any(path.exists() for path in (whole, killed, empty))


def test_replay_goes_on_after_what_has_already_arrived(store: TrackingTarget, tmp_path: Path) -> None:
    run_id = Tracker(start(store, key="half-sent"), tmp_path).finish("FINISHED")
    losses = [{"event": "metrics", "step": step, "values": {"loss": float(step)}} for step in range(4)]
    path = spool_for(store, tmp_path, [*losses, {"event": "end", "status": "FINISHED"}], key="half-sent")
    spool = Spool(path)
    spool.run_id = run_id
    spool.save(3)
    replay_left_behind(tmp_path)
    history = make_client(store.uri).get_metric_history(run_id, "loss")
    assert [point.step for point in history] == [2, 3]


def test_close_as_killed_replaces_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"event": "start"}\n{"event": "met')
    close_as_killed(Spool(path))
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["start", "end"]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_run_of_a_killed_stage_is_closed_as_killed(store: TrackingTarget, tmp_path: Path) -> None:
    code = (
        "import sys, time, json\nfrom pathlib import Path\nfrom pointloom.train.spool import *\n"
        "target = TrackingTarget(*json.loads(sys.argv[1]))\n"
        "start = RunStart('kill-9', target, 'x', None, None, time.time())\n"
        "tracker = Tracker(start, Path(sys.argv[2]))\ntracker.log_metrics({'loss': 3.0}, step=0)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    argument = json.dumps([store.uri, store.experiment, store.artifact_root])
    command = [sys.executable, "-c", code, argument, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == b"ready\n"
        os.kill(stage.pid, signal.SIGKILL)
    wait_until(lambda: not list(tmp_path.glob("*.jsonl")), seconds=60)
    client = make_client(store.uri)
    experiment = client.get_experiment_by_name("shapes").experiment_id
    (run,) = client.search_runs([experiment], "tags.`pointloom.key` = 'kill-9'")
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"loss": 3.0}


def test_flatten_gives_dotted_names() -> None:
    values = dict(flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": None}))
    assert values == {"a.b": "1", "a.c.d": "[1, 2]", "e": "text", "f": "null"}


def test_target_is_the_environment_before_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_target(tmp_path) is None
    (tmp_path / "workspace.yaml").write_text("source: raw\ntracking_uri: sqlite:///mlflow.db\nexperiment: chairs\n")
    database = tmp_path.resolve() / "mlflow.db"
    expected = TrackingTarget(f"sqlite:///{database}", "chairs", str(database.parent / "mlartifacts"))
    assert tracking_target(tmp_path) == expected
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert tracking_target(tmp_path) == TrackingTarget("http://mlflow.example:5000", "chairs")


def test_spool_goes_to_a_temporary_folder_when_state_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    assert spool_folder(tmp_path / "state") != tmp_path / "state" / "tracking"


@pytest.mark.slow
def test_events_reach_a_real_server_that_starts_late(tmp_path: Path) -> None:
    port = closed_port()
    target = TrackingTarget(f"http://127.0.0.1:{port}", "shapes")
    early = Tracker(start(target, key="early"), tmp_path)
    early.log_metrics({"loss": 1.0}, step=0)
    assert early.finish("FINISHED") is None
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "kept")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, seconds=90)
            picture = tmp_path / "picture.svg"
            picture.write_text("<svg/>")
            late = Tracker(start(target, key="late"), tmp_path)
            late.log_artifact(picture)
            run_id = late.finish("FINISHED", max_wait_s=60.0)
            wait_until(lambda: not list(tmp_path.glob("*.jsonl")), seconds=60)
            client = make_client(target.uri)
            experiment = client.get_experiment_by_name("shapes").experiment_id
            (run,) = client.search_runs([experiment], "tags.`pointloom.key` = 'early'")
            assert run.data.metrics == {"loss": 1.0}
            assert [item.path for item in client.list_artifacts(run_id)] == ["picture.svg"]
        finally:
            server.terminate()
