"""What the doctor says about images, of a registry on this machine and of a stand-in for Docker's command."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pointloom import image_checks
from pointloom._version import __version__
from pointloom.image_checks import IMAGES, check_images, manifest_address

Registry = tuple[str, dict[str, int]]


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry, and what it answers for which image; without OCI's type in Accept it knows none, as real ones do."""
    answers: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = "application/vnd.oci.image.manifest.v1+json" in self.headers.get("Accept", "")
            self.send_response(answers.get(self.path, 404) if known else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{running.server_port}/team", answers
        finally:
            running.shutdown()


def test_images_in_the_registry_are_found_under_the_tag_of_a_submission(registry: Registry) -> None:
    name, answers = registry
    answers |= {f"/v2/team/{image}/manifests/try": 200 for image in IMAGES}
    checks = list(check_images({"registry": f"{name}/"}, "try"))
    assert [(check.state, check.text) for check in checks] == [
        ("ok", f"{name}/{image}:try is in the registry") for image in IMAGES
    ]


def test_images_that_are_missing_come_with_the_commands_that_push_them(registry: Registry) -> None:
    name, answers = registry
    answers["/v2/team/pointloom-data/manifests/try"] = 200
    data, train, multimodal = check_images({"registry": name}, "try")
    assert [data.state, train.state, multimodal.state] == ["ok", "bad", "info"]
    image = f"{name}/pointloom-train:try"
    assert f"make images TAG=try && docker tag pointloom-train:try {image} && docker push {image}" in train.text
    assert "only the pipeline multimodal" in multimodal.text


@pytest.mark.parametrize(
    ("status", "secrets", "text"),
    [
        (401, ["login"], "asks for a login, pull secret login decides; to look"),
        (403, [], "asks for a login, images.pull_secrets names none"),
        (500, [], "status 500"),
    ],
)
def test_registry_that_does_not_say_is_no_failure(
    registry: Registry, status: int, secrets: list[str], text: str
) -> None:
    name, answers = registry
    answers |= {f"/v2/team/{image}/manifests/try": status for image in IMAGES}
    checks = list(check_images({"registry": name, "pull_secrets": secrets}, "try"))
    assert {check.state for check in checks} == {"info"}
    assert all(text in check.text for check in checks)


def test_dead_registry_is_asked_once() -> None:
    [check] = check_images({"registry": "127.0.0.1:9/team"}, "try")
    assert check.state == "info"
    assert "does not answer here" in check.text


@pytest.mark.parametrize(
    ("registry", "address"),
    [
        ("ghcr.io/you", "https://ghcr.io/v2/you/pointloom-data/manifests/t"),
        ("registry:5000", "https://registry:5000/v2/pointloom-data/manifests/t"),
        ("localhost:5000/a/b", "http://localhost:5000/v2/a/b/pointloom-data/manifests/t"),
        ("you", "https://registry-1.docker.io/v2/you/pointloom-data/manifests/t"),
        ("docker.io/you", "https://registry-1.docker.io/v2/you/pointloom-data/manifests/t"),
    ],
)
def test_names_of_images_are_read_as_docker_reads_them(registry: str, address: str) -> None:
    assert manifest_address(registry, "pointloom-data", "t") == address


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 1", "the engine here has not answered"),
        ("echo pointloom-data; echo pointloom-train", "no pointloom-multimodal of try; to build: make images TAG=try"),
        ("echo pointloom-data; echo pointloom-train; echo pointloom-multimodal", "the engine here has all of try"),
    ],
)
def test_without_a_registry_the_engine_here_is_asked_and_nodes_are_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    (tmp_path / "docker").write_text(f'#!/bin/sh\ntest "$4" = "reference=pointloom-*:try" || exit 1\n{script}\n')
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [check] = check_images({"registry": ""}, "try")
    assert check.state == "info"
    assert text in check.text
    assert "kind load docker-image" in check.text


def test_tag_is_that_of_a_submission_where_there_is_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "code_revision", lambda: {"revision": "0123456789abcdef", "dirty": False})
    [check] = check_images({"registry": "127.0.0.1:9"}, None)
    assert "does not answer" in check.text
    asked: list[str] = []
    monkeypatch.setattr(image_checks, "ask", lambda url, _: (asked.append(url), (200, ""))[1])
    list(check_images({"registry": "ghcr.io/you"}, None))
    assert asked[0] == f"https://ghcr.io/v2/you/pointloom-data/manifests/{__version__}-0123456789ab"
    monkeypatch.setattr(image_checks, "code_revision", lambda: {"revision": None, "dirty": None})
    [check] = check_images({"registry": "ghcr.io/you"}, None)
    assert "give --image-tag" in check.text
