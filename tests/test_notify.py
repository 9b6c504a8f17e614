"""The exit task of pipelines: what a webhook is told, and what is never shown."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from pointloom.notify import main, message, send


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()

        def log_message(self, format: str, *values: Any) -> None:
            """Keep the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", got
    server.shutdown()
    server.server_close()
    thread.join()


def test_webhook_is_told_how_the_run_ended(
    webhook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, got = webhook
    monkeypatch.setenv("POINTLOOM_WEBHOOK", f"{address}/s3cret")
    status = json.dumps({"state": "FAILED", "error": {"code": 1, "message": "no GPU"}})
    done = CliRunner().invoke(main, ["--name", "pointloom-pretrain", "--run", "r1", "--status", status])
    assert done.exit_code == 0, done.output
    assert got == [
        {
            "text": "pointloom: pointloom-pretrain has ended: FAILED (no GPU)",
            "pipeline": "pointloom-pretrain",
            "run_id": "r1",
            "state": "FAILED",
            "reason": "no GPU",
        }
    ]


@pytest.mark.parametrize("status", ["", "{{$.inputs.parameters['status']}}", "[]", "null", "{}"])
def test_status_that_no_server_filled_in_is_unknown(status: str) -> None:
    assert message(name="n", run="r", status=status)["state"] == "UNKNOWN"


def test_address_is_never_shown(webhook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, _ = webhook
    assert send(f"{address}/gone/s3cret", {}) == "the webhook answered 404"
    assert send("http://127.0.0.1:1/s3cret", {}) == "the webhook was not reached (ConnectionRefusedError)"
    monkeypatch.setenv("POINTLOOM_WEBHOOK", "s3cret-no-url")
    done = CliRunner().invoke(main, ["--name", "n", "--run", "r"])
    assert done.exit_code == 1
    assert "s3cret" not in done.output
    monkeypatch.delenv("POINTLOOM_WEBHOOK")
    assert CliRunner().invoke(main, ["--name", "n", "--run", "r"]).exit_code == 2
