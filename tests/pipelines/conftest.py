"""A Kubeflow Pipelines server on this machine: the endpoints of v2beta1 that submitting needs, over real HTTP."""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

BASE = "/apis/v2beta1"


@dataclass
class Kubeflow:
    """What the server holds, what it was asked, and how it is to misbehave.

    Attributes:
        url: Its address.
        requests: (method, path, headers, body) in order.
        token: Authorization header it wants, empty for none.
        states: States of a run, one per look; the last one stays.
        failures: (method, part of the path) -> codes to answer with, one per request; 0 means no answer in time.
        race: Uploads answer 409, although the thing was not listed before; afterwards it is.
    """

    url: str = ""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    token: str = ""
    states: list[str] = field(default_factory=lambda: ["PENDING", "RUNNING", "SUCCEEDED"])
    failures: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    race: bool = False
    pipelines: list[dict[str, str]] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)
    experiments: list[dict[str, str]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    timers: list[dict[str, Any]] = field(default_factory=list)

    def paths(self, method: str) -> list[str]:
        """Return the paths that were asked for with a method, without what follows a question mark."""
        return [path.removeprefix(BASE) for verb, path, _, _ in self.requests if verb == method]

    def failure(self, method: str, path: str) -> int | None:
        for (verb, part), codes in self.failures.items():
            if verb == method and part in path and codes:
                return codes.pop(0)
        return None

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: str) -> tuple[int, dict[str, Any]]:
        known = {"/healthz": {"multi_user": False}}
        if path in known:
            return 200, known[path]
        if method == "GET" and path in {"/pipelines", "/experiments"}:
            wanted = json.loads(query["filter"][0])["predicates"][0]["stringValue"]
            items = getattr(self, path[1:])
            return 200, {path[1:]: [item for item in items if item["display_name"] == wanted]}
        if path == "/pipelines/upload":
            return self._keep(self.pipelines, {"pipeline_id": "p1", "display_name": query["name"][0]})
        if path == "/pipelines/upload_version":
            number = f"v{len(self.versions) + 1}"
            made = {
                "pipeline_id": query["pipelineid"][0],
                "pipeline_version_id": number,
                "display_name": query["name"][0],
            }
            return self._keep(self.versions, made)
        if re.fullmatch(r"/pipelines/p1/versions", path):
            return self._page(query)
        if method == "POST" and path == "/experiments":
            return self._keep(self.experiments, json.loads(body) | {"experiment_id": "e1"})
        if method == "POST" and path == "/runs":
            return self._keep(self.runs, json.loads(body) | {"run_id": "r1"})
        if method == "POST" and path == "/recurringruns":
            return self._keep(self.timers, json.loads(body) | {"recurring_run_id": "t1"})
        if path == "/runs/r1":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return 200, {"run_id": "r1", "state": state}
        return 404, {"error": f"{method} {path}"}

    def _keep(self, items: list[Any], item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        items.append(item)
        if self.race and "display_name" in item and "experiment_id" not in item and "run_id" not in item:
            return 409, {"error": "already exists"}
        return 200, item

    def _page(self, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        first = int(query.get("page_token", ["0"])[0] or 0)
        page: dict[str, Any] = {"pipeline_versions": self.versions[first : first + 2]}
        if first + 2 < len(self.versions):
            page["next_page_token"] = str(first + 2)
        return 200, page


def make_handler(kubeflow: Kubeflow) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length).decode()
            address = urlsplit(self.path)
            kubeflow.requests.append((self.command, address.path, dict(self.headers), body))
            path = address.path.removeprefix(BASE)
            code = kubeflow.failure(self.command, path)
            if code == 0:
                time.sleep(1.5)
                return
            content: dict[str, Any] = {"error": "as asked"}
            if code is None and kubeflow.token and self.headers.get("authorization") != kubeflow.token:
                code = 401
            if code is None:
                code, content = kubeflow.answer(self.command, path, parse_qs(address.query), body)
            text = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 - names that http.server calls

        def log_message(self, format: str, *values: Any) -> None:
            """Keep the test's output clean."""

    return Handler


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Kubeflow]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    found = Kubeflow()
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(found))
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()
