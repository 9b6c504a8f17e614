"""What the doctor says about servers, each played by a small one on this machine."""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pointloom.doctor import examine
from pointloom.examination import Check
from pointloom.services import check_kubeflow, check_remotes, check_tracking_server

GOOD = "Basic " + base64.b64encode(b"ann:secret-word").decode()


@contextmanager
def server(status: int, body: str = "", *, login: str = "", to: str = "") -> Iterator[str]:
    """A server that answers every GET alike, or 401 unless it is given the right login."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            refused = login and self.headers.get("Authorization") != login
            self.send_response(401 if refused else status)
            if to:
                self.send_header("Location", to)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()


@pytest.fixture(autouse=True)
def _without_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "KF_PIPELINES_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("status", "body", "state", "text"),
    [
        (200, "{}", "ok", "answers; 2 runs wait"),
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST"}', "ok", "answers"),
        (401, "", "bad", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "bad", "to --allowed-hosts"),
        (403, "Permission denied", "bad", "gives you no permission"),
        (502, "", "info", "status 502"),
    ],
)
def test_tracking_server_gets_advice_that_fits_its_answer(status: int, body: str, state: str, text: str) -> None:
    with server(status, body) as url:
        check = check_tracking_server(url, waiting="; 2 runs wait")
    assert check.state == state
    assert text in check.text


def test_tracking_password_is_used_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, "{}", login=GOOD) as url:
        assert check_tracking_server(url).state == "bad"
        check = check_tracking_server(url.replace("http://", "http://ann:secret-word@"))
        assert check.state == "ok"
        assert "secret-word" not in check.text
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret-word")
        assert check_tracking_server(url).state == "ok"


def test_dead_tracking_server_is_no_obstacle() -> None:
    with server(200) as url:
        pass
    check = check_tracking_server(url)
    assert check.state == "info"
    assert "refused" in check.text
    assert "events are kept and sent later" in check.text


@pytest.mark.parametrize(
    ("status", "body", "state", "text"),
    [
        (200, '{"multi_user": false}', "ok", "answers, and does not say its version"),
        (200, '{"apiServerReady": true, "frontendTagName": "2.15.0"}', "ok", "answers, version 2.15.0"),
        (200, '{"apiServerReady": false, "frontendTagName": "2.15.0"}', "bad", "the API server behind it does not"),
        (200, '{"apiServerTagName": "2.5.0"}', "info", "before 2.6 set webhook: null"),
        (200, '{"tag_name": "1.8.22", "commit_sha": "0"}', "bad", "is version 1.8.22; pipelines are for 2"),
        (200, '{"tag_name": "master"}', "ok", "version master"),
        (200, "<html>Log in</html>", "info", "asks for a login"),
        (403, "RBAC: access denied", "info", "asks for a login"),
        (500, "", "bad", "status 500"),
    ],
)
def test_kubeflow_is_told_from_the_login_before_it(status: int, body: str, state: str, text: str) -> None:
    with server(status, body) as url:
        check = check_kubeflow(f"{url}/")
    assert check.state == state
    assert text in check.text


def test_token_of_kubeflow_is_tried_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(200, "{}", login="Bearer secret-word") as url:
        assert check_kubeflow(url).state == "info"
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-word")
        assert check_kubeflow(url).state == "ok"
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-old")
        check = check_kubeflow(url)
    assert check.state == "bad"
    assert "kubectl create token" in check.text
    assert "secret-old" not in check.text


def test_a_page_that_one_is_sent_on_to_gets_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret-word")
    with server(200, "{}", login="Bearer secret-word") as elsewhere, server(302, to=f"{elsewhere}/login") as url:
        assert check_kubeflow(url).state == "bad"


def test_remotes_of_dvc_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "store").mkdir()
    config = tmp_path / ".dvc" / "config"
    config.write_text("['remote \"near\"']\n    url = ../store\n['remote \"gone\"']\n    url = ../nowhere\n")
    near, gone = check_remotes(tmp_path)
    assert (near.state, near.name, near.text) == ("ok", "remote near", str(tmp_path / "store"))
    assert (gone.state, gone.text) == ("bad", f"{tmp_path / 'nowhere'} is not a writable folder")

    config.write_text("['remote \"far\"']\n    url = s3://bucket/path\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    [far] = check_remotes(tmp_path)
    assert far.text == "s3://bucket/path needs: pip install dvc-s3"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Check]:
    """Look at a remote in S3 at an address, with lines of its own in .dvc/config.local, where no key is but theirs."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    (tmp_path / ".dvc").mkdir()

    def look(url: str, lines: str = "") -> Check:
        remote = "['remote \"far\"']\n"
        at = f"    endpointurl = {url}\n" if url else ""
        (tmp_path / ".dvc" / "config").write_text(f"{remote}    url = s3://bucket/path\n{at}")
        (tmp_path / ".dvc" / "config.local").write_text(remote + lines)
        [check] = check_remotes(tmp_path)
        return check

    return look


KEYS = "    access_key_id = ann\n    secret_access_key = secret-word\n"


@pytest.mark.parametrize(
    ("status", "body", "state", "text"),
    [
        (200, "<ListBucketResult/>", "ok", "answers, and lists the bucket"),
        (404, "<Error><Code>NoSuchBucket</Code><Message>not there</Message></Error>", "bad", "NoSuchBucket: not there"),
        (403, "<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>", "bad", "SignatureDoesNotMatch"),
    ],
)
def test_remote_in_s3_is_listed_with_the_keys_of_dvc(
    store: Callable[..., Check], status: int, body: str, state: str, text: str
) -> None:
    with server(status, body) as url:
        check = store(url, KEYS)
    assert check.state == state
    assert f"s3://bucket/path at {url}" in check.text
    assert text in check.text
    assert "secret-word" not in check.text


def test_remote_in_s3_needs_a_key_and_an_answer(store: Callable[..., Check]) -> None:
    """Without an address it is AWS itself, which is not asked where there is no key."""
    check = store("")
    assert check.state == "bad"
    assert "s3://bucket/path at AWS: no key is found; set AWS_ACCESS_KEY_ID" in check.text
    with server(200, "<ListBucketResult/>") as url:
        assert store(url, "    allow_anonymous_login = true\n").state == "ok"
    check = store(url, KEYS)
    assert check.state == "bad"
    assert "Could not connect" in check.text


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 1", [("info", "no engine answers")]),
        (
            'case "$1" in version) echo 29.1.0;; *) echo pointloom-train:0.1.0-abc pointloom-train:0.0.1;; esac',
            [("ok", "engine 29.1.0"), ("ok", "pointloom-train:0.1.0-abc")],
        ),
        (
            'case "$1" in version) echo 29.1.0;; *) echo;; esac',
            [("ok", "engine 29.1.0"), ("info", "to build them: make images")],
        ),
    ],
)
def test_docker_and_images_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: list[tuple[str, str]]
) -> None:
    """With a stand-in for the command, because few machines that run this test have an engine."""
    command = tmp_path / "docker"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = [check for check in examine(tmp_path) if check.name in {"Docker", "images"}]
    assert [check.state for check in found] == [state for state, _ in expected]
    for check, (_, text) in zip(found, expected, strict=True):
        assert text in check.text
