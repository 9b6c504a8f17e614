"""What the doctor says about kubectl, passwords in addresses and stages of which parts are done."""

from pathlib import Path

import pytest

from pointloom.cluster_checks import check_kubectl, check_login, check_parts


@pytest.mark.parametrize(
    ("script", "state", "text"),
    [
        (None, "info", "not found; only the set-up of a cluster"),
        ("exit 1", "info", "choose one: kubectl config use-context"),
        ('test "$*" = "config current-context" && echo team-cluster', "ok", "context team-cluster"),
    ],
)
def test_kubectl_is_asked_for_its_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, state: str, text: str
) -> None:
    if script is not None:
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = check_kubectl()
    assert check.state == state
    assert text in check.text


def test_passwords_in_addresses_are_warned_of_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:pl4nted@example.org")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "https://example.org")
    [check] = check_login()
    assert "better is MLFLOW_TRACKING_USERNAME" in check.text
    assert "pl4nted" not in check.text


def test_parts_that_nobody_has_brought_together_are_listed(tmp_path: Path) -> None:
    for name in ("render/0f/views-0-of-4.journal", "render/0f/views-2-of-4.journal", "prepare/objects-0-of-2.journal"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "prepare/objects.journal").touch()
    for name in ("shape-1-of-3.journal", "look-1-of-3.journal"):  # one part of embed has a journal per teacher
        (tmp_path / "embed/aa").mkdir(parents=True, exist_ok=True)
        (tmp_path / "embed/aa" / name).touch()
    texts = [check.text.partition(";")[0] for check in check_parts(tmp_path)]
    assert texts == [
        "embed: 1 of 3 were begun",
        "prepare: 1 of 2 were begun",
        "render: 2 of 4 were begun",
    ]
