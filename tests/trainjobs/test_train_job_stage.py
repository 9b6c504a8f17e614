"""A stage on two machines: the TrainJob's pods are real processes, the cluster is a server on the loopback."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointloom.errors import DataError, ParamsError
from pointloom.stages import STAGES
from pointloom.stages.signature import read_signature
from pointloom.trainjobs.manifest import TrainJobSettings, train_job
from pointloom.trainjobs.stage import fetch_outputs, job_name, read_settings, share_paths
from tests.stages.test_training import mae, workspace
from tests.trainjobs.fake_cluster import FakeCluster
from tests.trainjobs.test_follow import ROOT, cluster, stage_environment

__all__ = ["cluster", "workspace"]  # fixtures

PRETRAIN = read_signature("pretrain", STAGES["pretrain"])


def settings(**changed: Any) -> TrainJobSettings:
    values: dict[str, Any] = {
        "image": "registry/pointloom-train:1", "runtime": "torch-distributed", "nodes": 2, "processes": 4, "gpus": 4,
        "accelerator": "nvidia.com/gpu", "cpu": "8", "memory": "48Gi", "shm": "8Gi", "claim": "pointloom",
        "mount": "/pointloom", "tolerations": [{"key": "gpu", "operator": "Exists"}], "node_selector": {"zone": "a"},
        "env": {"POINTLOOM_MODELS": "/pointloom/models"}, "pull_secrets": ["registry"], "timeout_s": 3600,
        "secrets": [{"secret": "mlflow", "key": "password", "env": "MLFLOW_TRACKING_PASSWORD", "optional": True}],
    }  # fmt: skip
    return TrainJobSettings.model_validate(values | changed)


def test_manifest_says_everything_that_a_node_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    manifest = train_job("pointloom-align-1", settings(), ["align", "--params", "{}"], namespace="team")
    trainer = manifest["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["command"] + trainer["args"] == ["pointloom", "align", "--params", "{}"]
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "48Gi", "nvidia.com/gpu": "4"}
    variables = {each["name"]: each for each in trainer["env"]}
    assert variables["POINTLOOM_DEVICE"]["value"] == "cuda"
    assert (variables["MLFLOW_RUN_ID"]["value"], variables["MLFLOW_WORKSPACE"]["value"]) == ("abc", "team")
    assert variables["MLFLOW_TRACKING_URI"]["value"] == "https://mlflow.example.org"
    assert variables["MLFLOW_TRACKING_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] == "password"
    assert not [name for name in variables if name.startswith("PET_")]  # reserved by Kubeflow Trainer
    assert "hidden" not in json.dumps(manifest)
    (patch,) = manifest["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {"shared", "shm"}
    assert pod["containers"] == [{
        "name": "node",
        "volumeMounts": [{"name": "shared", "mountPath": "/pointloom"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }]  # fmt: skip
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_address_with_a_password_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example.org")
    given = settings(env={"MLFLOW_TRACKING_URI": "https://mlflow.example.org"})
    manifest = train_job("pointloom-align-1", given, ["align"], namespace="team")
    assert {"name": "MLFLOW_TRACKING_URI", "value": "https://mlflow.example.org"} in manifest["spec"]["trainer"]["env"]
    assert "hidden" not in json.dumps(manifest)


def test_attempts_of_a_step_share_a_name_and_other_steps_have_others(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"dataset": Path("data"), "encoder": Path("models/mae")}
    names = {job_name("pretrain", mae(), paths), job_name("pretrain", mae(), paths)}
    assert len(names) == 1
    names.add(job_name("pretrain", mae(seed=1), paths))
    names.add(job_name("pretrain", mae(), paths | {"encoder": Path("models/other")}))
    monkeypatch.setenv("KFP_RUN_ID", "run")
    names.add(job_name("pretrain", mae(), paths))
    assert len(names) == 4
    assert all(len(name) <= 40 for name in names)


def test_paths_outside_of_the_volume_are_copied_once_and_outputs_come_back(tmp_path: Path) -> None:
    mount, local = tmp_path / "mount", tmp_path / "local"
    (local / "data").mkdir(parents=True)
    (local / "data" / "file").write_text("1")
    paths = {
        "dataset": local / "data", "encoder": local / "models" / "mae", "metrics": local / "mae.json",
        "state": mount / "state",
    }  # fmt: skip
    shared = share_paths(PRETRAIN, paths, mount / "work", mount=mount)
    assert shared["state"] == mount / "state"
    assert shared["encoder"] == mount / "work" / "encoder" / "mae"
    assert (shared["dataset"] / "file").read_text() == "1"
    (local / "data" / "file").write_text("2")
    share_paths(PRETRAIN, paths, mount / "work", mount=mount)
    assert (shared["dataset"] / "file").read_text() == "1"
    with pytest.raises(DataError, match=r"has succeeded and not written encoder .*, metrics .*mount the same volume"):
        fetch_outputs(PRETRAIN, shared, paths)
    shared["encoder"].mkdir(parents=True)
    shared["metrics"].parent.mkdir(parents=True)
    shared["metrics"].write_text("{}")
    fetch_outputs(PRETRAIN, shared, paths)
    assert paths["metrics"].read_text() == "{}"
    assert paths["encoder"].is_dir()


def test_wrong_settings_are_named_and_not_shown() -> None:
    with pytest.raises(ParamsError, match=r"POINTLOOM_TRAINJOB: .*nodes") as error:
        read_settings(settings().model_dump_json().replace('"nodes":2', '"nodes":"private"'))
    assert "private" not in str(error.value)


class Nodes:
    """Starts a TrainJob's pods as processes of this machine, as Kubeflow Trainer's torch plugin starts containers."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.processes: list[subprocess.Popen[str]] = []
        cluster.ends = None
        cluster.on_start = self.start

    def start(self, manifest: dict[str, Any]) -> None:
        trainer = manifest["spec"]["trainer"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POINTLOOM_"))}
        for rank in range(trainer["numNodes"]):
            environment = {
                **kept, **{each["name"]: each["value"] for each in trainer["env"]}, "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1", "PET_NNODES": str(trainer["numNodes"]), "PET_NODE_RANK": str(rank),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]), "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }  # fmt: skip
            command = [sys.executable, "-m", "pointloom.cli", *trainer["args"]]
            self.processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )

    def wait(self) -> None:
        texts = [process.communicate(timeout=300)[0] for process in self.processes]
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.cluster.log = [(stamp.replace("Z", f".{n:09d}Z"), line) for n, line in enumerate(texts[0].splitlines())]
        failed = any(process.returncode for process in self.processes)
        self.cluster.exit_code = self.processes[0].returncode
        self.cluster.ends = "Failed" if failed else "Complete"


@pytest.fixture
def nodes(cluster: FakeCluster) -> Iterator[Nodes]:
    made = Nodes(cluster)
    yield made
    for process in made.processes:
        process.kill()


@pytest.mark.slow
def test_stage_on_two_nodes_gives_what_one_process_gives(nodes: Nodes, workspace: Path, tmp_path: Path) -> None:
    cluster = nodes.cluster
    (tmp_path / "shared").mkdir()
    words = ["pretrain", "--params", mae().model_dump_json(), "--dataset", str(workspace / "data")]
    words += ["--encoder", "models/mae", "--metrics", "mae.json", "--state", str(tmp_path / "shared" / "state")]
    step = subprocess.Popen(
        [sys.executable, "-m", "pointloom.cli", *words], cwd=tmp_path, env=stage_environment(cluster, tmp_path),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(nodes.processes) < 2:
        assert step.poll() is None, step.stderr and step.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    nodes.wait()
    _, said = step.communicate(timeout=120)
    assert step.returncode == 0, said + str(cluster.log)
    assert "pretrain mae: done" in said  # the first process's log
    assert cluster.jobs == {}
    assert not list((tmp_path / "shared" / "trainjobs").iterdir())
    alone = json.loads((workspace / "mae.json").read_text())["metrics"]
    together = json.loads((tmp_path / "mae.json").read_text())["metrics"]
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert (tmp_path / "models" / "mae" / "encoder.safetensors").is_file()
