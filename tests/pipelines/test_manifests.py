"""Manifests that the manuals show: Kubernetes knows every field, and they are what cluster file and code need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from kubernetes import client

from pipelines.cluster import read_cluster
from pointloom.training_checks import NEEDED

DOCS = Path(__file__).resolve().parents[2] / "docs"
MANUALS = {name: (DOCS / name).read_text() for name in ("cluster.md", "kubeflow.md")}


def manifests() -> dict[str, dict[str, Any]]:
    """Return the manifests by kind."""
    found = [
        yaml.safe_load(text)
        for manual in MANUALS.values()
        for text in re.findall(r"(?:<<YAML|```yaml)\n(.*?)\n(?:YAML|```)$", manual, re.DOTALL | re.MULTILINE)
    ]
    return {manifest["kind"]: manifest for manifest in found}


def unknown_fields(value: Any, kind: str, place: str = "") -> list[str]:
    """Return the fields that the model ``kind`` of Kubernetes' own client does not have, however deep."""
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        return [name for n, each in enumerate(value) for name in unknown_fields(each, inner[1], f"{place}[{n}]")]
    if not hasattr(client, kind):  # text, a number, or free names
        return []
    model = getattr(client, kind)
    fields = {written: model.openapi_types[name] for name, written in model.attribute_map.items()}
    return [
        name for key, each in value.items()
        for name in (unknown_fields(each, fields[key], f"{place}.{key}") if key in fields else [f"{place}.{key}"])
    ]  # fmt: skip


def test_kubernetes_knows_every_field() -> None:
    found = manifests()
    assert set(found) == {"PersistentVolumeClaim", "Role"}
    for kind, manifest in found.items():
        assert unknown_fields(manifest, f"V1{kind}") == []
    wrong = {"spec": {"resources": {"request": {}}, "accessMode": []}}
    assert unknown_fields(wrong, "V1PersistentVolumeClaim") == [".spec.resources.request", ".spec.accessMode"]


def test_volume_is_the_cluster_files() -> None:
    claim, storage = manifests()["PersistentVolumeClaim"], read_cluster().storage
    assert storage is not None
    assert claim["metadata"]["name"] == storage.claim
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_role_permits_what_the_step_asks_for() -> None:
    rules = manifests()["Role"]["rules"]
    permitted = {(rule["apiGroups"][0], rule["resources"][0], tuple(rule["verbs"])) for rule in rules}
    assert permitted == set(NEEDED)


def test_secrets_that_the_manuals_make_are_those_of_the_cluster_file() -> None:
    cluster = read_cluster()
    assert cluster.webhook is not None
    named = {(each.secret, each.key) for each in (*cluster.secrets, cluster.webhook)}
    for manual in MANUALS.values():
        lines = re.findall(r"create secret generic (\S+) (.*)", manual)
        assert {(name, key) for name, rest in lines for key in re.findall(r"--from-literal=(\w+)", rest)} == named
