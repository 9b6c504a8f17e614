"""What the doctor finds in a cluster that is, or is not, as a cluster file says; kubectl is a script."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.cluster_file import check_cluster

FILE = Path(__file__).resolve().parents[1] / "pipelines/cluster.yaml"
KUBECTL = """#!/bin/sh
test "$1 $2" = "--namespace team" || exit 3
shift 2
if test "$1" = get; then asked="$2 $3"; else asked="$*"; fi
case "$asked" in
{answers}
*) echo "Error from server (NotFound): $asked not found" >&2; exit 1;;
esac
"""
Cluster = Callable[[dict[str, str]], None]
Mine = Callable[..., Path]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Make a cluster that has so much, by kind and name."""

    def made(answers: dict[str, str]) -> None:
        lines = [
            f"{shlex.quote(asked)}) echo {shlex.quote(answer)}; exit {int(answer == 'no')};;"
            for asked, answer in answers.items()
        ]
        (tmp_path / "kubectl").write_text(KUBECTL.format(answers="\n".join(lines)))
        (tmp_path / "kubectl").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return made


def claim(mode: str = "ReadWriteMany", phase: str = "Bound") -> str:
    return json.dumps({"spec": {"accessModes": [mode]}, "status": {"phase": phase}})


def nodes(*gpus: str | None, labels: dict[str, str] | None = None, taint: str = "") -> str:
    """Nodes with so many GPUs; those that have any have the labels and the taint KEY=VALUE:EFFECT."""
    key, value, effect = re.split("[=:]", taint) if taint else ("", "", "")
    taints = {"taints": [{"key": key, "effect": effect} | ({"value": value} if value else {})]} if taint else {}
    return json.dumps({
        "items": [
            {
                "metadata": {"labels": labels or {}} if n else {},
                "spec": taints if n else {},
                "status": {"allocatable": {"cpu": "8"} | ({"nvidia.com/gpu": n} if n else {})},
            }
            for n in gpus
        ]
    })  # fmt: skip


def rights(account: str, *, missing: str = "") -> dict[str, str]:
    """Answers about an account that may do all that a TrainJob needs, but for one thing."""
    whose = f"--as system:serviceaccount:team:{account}"
    jobs = [f"{verb} trainjobs.trainer.kubeflow.org" for verb in ("create", "get", "delete")]
    asked = [*jobs, "list pods", "get pods --subresource=log"]
    answers = {f"auth can-i {what} {whose}": "no" if what == missing else "yes" for what in asked}
    return {f"serviceaccount {account}": "team", **answers}


GOOD = {
    "--raw /version": "{}", "pvc pointloom": claim(), "secret pointloom-mlflow": "password username ",
    "secret pointloom-webhook": "url ", "nodes --output": nodes("4", None, "8"),
}  # fmt: skip
RUNTIME = {"clustertrainingruntimes.trainer.kubeflow.org torch-distributed": "runtime"}


def found(file: Path = FILE) -> dict[str, tuple[str, str]]:
    """Return what was found but for images, by name and first word."""
    checks = [each for each in check_cluster(file, "team", "try") if each.name != "images"]
    return {f"{each.name} {each.text.split()[0]}": (each.state, each.text) for each in checks}


@pytest.fixture
def mine(tmp_path: Path) -> Mine:
    """Make a cluster file with other values in its class `train`."""

    def made(**changes: Any) -> Path:
        values: dict[str, Any] = yaml.safe_load(FILE.read_text())
        values["classes"]["train"] |= changes
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "mine.yaml"

    return made


def test_cluster_that_has_everything_is_fine(cluster: Cluster) -> None:
    cluster(GOOD)
    checks = found()
    assert {state for state, _ in checks.values()} == {"ok"}
    assert checks["GPUs 12"][1] == "12 x nvidia.com/gpu on 2 of 3 nodes"
    assert set(checks) == {
        "volume claim", "secret pointloom-mlflow", "secret pointloom-webhook", "GPUs 12",
        "GPU nodes render:", "GPU nodes train:",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "check", "state", "text"),
    [
        ({"pvc pointloom": None}, "volume claim", "bad", "NotFound.*docs/cluster.md, section 4"),
        ({"pvc pointloom": claim("ReadWriteOnce")}, "volume claim", "bad", "need ReadWriteMany"),
        ({"pvc pointloom": claim(phase="Pending")}, "volume claim", "info", "kubectl describe pvc"),
        ({"secret pointloom-webhook": None}, "secret pointloom-webhook:", "bad",
         "create secret generic pointloom-webhook --from-literal=url=..."),
        ({"secret pointloom-webhook": "token "}, "secret pointloom-webhook:", "bad", "without url"),
        ({"secret pointloom-mlflow": "username "}, "secret pointloom-mlflow:", "info", "without password"),
        ({"nodes --output": nodes(None)}, "GPUs no", "bad", "no node offers nvidia.com/gpu; install"),
        ({"nodes --output": None}, "GPUs not", "info", "not seen"),
        ({"--raw /version": None}, "cluster no", "bad", "or leave --cluster out"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_what_to_do(
    cluster: Cluster, changed: dict[str, str | None], check: str, state: str, text: str
) -> None:
    cluster({name: answer for name, answer in (GOOD | changed).items() if answer is not None})
    assert found()[check][0] == state
    assert all(part in found()[check][1] for part in text.split(".*"))


@pytest.mark.parametrize(
    ("changes", "has", "state", "text"),
    [
        ({}, {"taint": "gpu=yes:NoSchedule"}, "bad", "gpu=yes:NoSchedule; add it to classes.train.tolerations"),
        ({}, {"taint": "gpu=yes:NoExecute"}, "bad", "gpu=yes:NoExecute"),
        ({}, {"taint": "gpu=yes:PreferNoSchedule"}, "ok", "may run on 2"),
        ({}, {"taint": "nvidia.com/gpu=present:NoSchedule"}, "info", "unless the cluster does"),
        ({}, {"taint": "cloud.google.com/gke-spot=true:NoSchedule"}, "ok", "may run on 2"),
        ({"spot": False}, {"taint": "cloud.google.com/gke-spot=true:NoSchedule"}, "bad", "gke-spot=true:NoSchedule"),
        ({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]},
         {"taint": "gpu=yes:NoSchedule"}, "ok", "may run on 2"),
        ({"tolerations": [{"key": "gpu", "operator": "Equal", "value": "no", "effect": "NoSchedule"}]},
         {"taint": "gpu=yes:NoSchedule"}, "bad", "gpu=yes:NoSchedule"),
        ({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]},
         {"taint": "gpu=yes:NoSchedule"}, "bad", "gpu=yes:NoSchedule"),
        ({"node_selector": {"pool": "a100"}}, {"labels": {"pool": "l4"}}, "bad", "with 1 x nvidia.com/gpu pool=a100"),
        ({"node_selector": {"pool": "a100"}}, {"labels": {"pool": "a100", "zone": "b"}}, "ok", "may run on 2"),
        ({"gpus": 8}, {}, "ok", "may run on 1"),
        ({"gpus": 16}, {}, "bad", "needs 1 with 16 x nvidia.com/gpu, there are 0"),
        ({"gpus": 8, "nodes": 2}, {}, "bad", "needs 2 with 8 x nvidia.com/gpu, there are 1"),
    ],
)  # fmt: skip
def test_nodes_that_a_class_cannot_run_on_are_told_from_those_it_can(
    cluster: Cluster, mine: Mine, changes: dict[str, Any], has: dict[str, Any], state: str, text: str
) -> None:
    cluster(GOOD | {"nodes --output": nodes("4", None, "8", **has)})
    check = found(mine(**changes))["GPU nodes train:"]
    assert check[0] == state
    assert text in check[1]


def test_several_nodes_and_private_images_need_more(cluster: Cluster, mine: Mine, tmp_path: Path) -> None:
    values: dict[str, Any] = yaml.safe_load(mine(nodes=2).read_text())
    values["images"]["pull_secrets"] = ["registry"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    cluster(GOOD)
    checks = found(tmp_path / "mine.yaml")
    assert checks["runtime torch-distributed:"][0] == checks["secret registry:"][0] == "bad"
    cluster(GOOD | RUNTIME | {"secret registry": ".dockerconfigjson "} | rights("pipeline-runner"))
    checks = found(tmp_path / "mine.yaml")
    assert {state for state, _ in checks.values()} == {"ok"}
    assert checks["TrainJobs account"][1].startswith("account pipeline-runner of team may")


@pytest.mark.parametrize(
    ("answers", "check", "state", "text"),
    [
        (rights("default-editor", missing="delete trainjobs.trainer.kubeflow.org"), "TrainJobs account", "bad",
         "account default-editor of team may not delete trainjobs; .*docs/kubeflow.md"),
        (rights("pipeline-runner", missing="get pods --subresource=log"), "TrainJobs account", "bad",
         "may not get pods/log; "),
        ({"serviceaccount default-editor": "team"}, "TrainJobs not", "info", "not asked in the name of.*in a pod"),
        ({}, "TrainJobs no", "info", "no account default-editor or pipeline-runner in the namespace"),
    ],
)  # fmt: skip
def test_rights_to_train_on_several_nodes_are_asked_for_in_the_name_of_the_account(
    cluster: Cluster, mine: Mine, answers: dict[str, str], check: str, state: str, text: str
) -> None:
    cluster(GOOD | RUNTIME | answers)
    checks = found(mine(nodes=2))
    assert checks[check][0] == state
    assert all(part in checks[check][1] for part in text.split(".*"))


def test_without_kubectl_that_is_all_there_is_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found() == {
        "cluster no": ("bad", "no answer: kubectl is not installed; try `kubectl cluster-info`, or leave --cluster out")
    }
