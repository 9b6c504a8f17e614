"""What the doctor finds in a cluster that is, or is not, as a cluster file says; kubectl is a script."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.cluster_file import check_cluster

FILE = Path(__file__).resolve().parents[1] / "pipelines/cluster.yaml"
KUBECTL = """#!{python} -SE
import json, sys
assert sys.argv[1:4] == ["--namespace", "team", "get"], sys.argv
answer = json.load(open({answers!r})).get(" ".join(sys.argv[4:6]))
if answer is None:
    sys.exit(f"Error from server (NotFound): {{sys.argv[4]}} not found")
print(answer)
"""
Cluster = Callable[[dict[str, str]], None]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Make a cluster that has so much, by kind and name."""

    def made(answers: dict[str, str]) -> None:
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        script = KUBECTL.format(python=sys.executable, answers=str(tmp_path / "answers.json"))
        (tmp_path / "kubectl").write_text(script)
        (tmp_path / "kubectl").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return made


def claim(mode: str = "ReadWriteMany", phase: str = "Bound") -> str:
    return json.dumps({"spec": {"accessModes": [mode]}, "status": {"phase": phase}})


def nodes(*gpus: str | None) -> str:
    return json.dumps({
        "items": [{"status": {"allocatable": {"cpu": "8"} | ({"nvidia.com/gpu": n} if n else {})}} for n in gpus]
    })  # fmt: skip


GOOD = {
    "--raw /version": "{}", "pvc pointloom": claim(), "secret pointloom-mlflow": "password username ",
    "secret pointloom-webhook": "url ", "nodes --output": nodes("4", None, "8"),
}  # fmt: skip


def found(file: Path = FILE) -> dict[str, tuple[str, str]]:
    return {f"{each.name} {each.text.split()[0]}": (each.state, each.text) for each in check_cluster(file, "team")}


def test_cluster_that_has_everything_is_fine(cluster: Cluster) -> None:
    cluster(GOOD)
    checks = found()
    assert {state for state, _ in checks.values()} == {"ok"}
    assert checks["GPUs 12"][1] == "12 x nvidia.com/gpu on 2 of 3 nodes"
    assert set(checks) == {
        "volume claim", "secret pointloom-mlflow", "secret pointloom-webhook", "GPUs 12",
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


def test_several_nodes_and_private_images_need_more(cluster: Cluster, tmp_path: Path) -> None:
    values: dict[str, Any] = yaml.safe_load(FILE.read_text())
    values["classes"]["train"]["nodes"] = 2
    values["images"]["pull_secrets"] = ["registry"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    cluster(GOOD)
    checks = found(tmp_path / "mine.yaml")
    assert checks["runtime torch-distributed:"][0] == checks["secret registry:"][0] == "bad"
    name = "clustertrainingruntimes.trainer.kubeflow.org torch-distributed"
    cluster(GOOD | {name: "runtime", "secret registry": ".dockerconfigjson "})
    assert {state for state, _ in found(tmp_path / "mine.yaml").values()} == {"ok"}


def test_without_kubectl_that_is_all_there_is_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found() == {
        "cluster no": ("bad", "no answer: kubectl is not installed; try `kubectl cluster-info`, or leave --cluster out")
    }
