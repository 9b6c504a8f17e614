"""A Kubernetes API server on the loopback that knows TrainJobs, pods and logs, and has faults on demand."""

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
PODS = "/api/v1/namespaces/team/pods"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class FakeCluster:
    """Namespace ``team``.

    Attributes:
        jobs: TrainJobs by name.
        requests: Method and path of everything that was asked.
        faults: Status and pattern of ``METHOD path``; each answers one request, the first that matches.
        token: What clients must send, None for nothing.
        log: Lines of the first process, with their times.
        lines_per_answer: After how many lines the connection of a log is cut.
        ends: How a job has ended once its log was read completely: ``Complete``, ``Failed``, None for not at all.
        exit_code: Of the first process, where the job fails.
        on_start: Called with the manifest of every new job.
        allowed: What access reviews answer.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[tuple[int, str]] = []
        self.token: str | None = None
        self.log: list[tuple[str, str]] = []
        self.lines_per_answer = 100
        self.lines_given = 0
        self.ends: str | None = "Complete"
        self.exit_code = 1
        self.on_start: Callable[[dict[str, Any]], None] = lambda _: None
        self.allowed: Callable[[dict[str, Any]], bool] = lambda _: True
        cluster = self

        class Handler(_Handler):
            pass

        Handler.cluster = cluster
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for asked, path in self.requests if asked == method and re.search(pattern, path))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def job_with_state(self, name: str) -> dict[str, Any]:
        job = dict(self.jobs[name])
        if self.lines_given >= len(self.log) and self.ends and "status" not in job:
            reason = {"reason": "JobsFailed", "message": "jobset failed due to one or more job failures"}
            condition = {"type": self.ends, "status": "True", **(reason if self.ends == "Failed" else {})}
            job["status"] = {"conditions": [condition]}
        return job

    def pods(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {
                    "name": f"{name}-node-0-{index}-x",
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
                },
                "status": {"containerStatuses": [{"name": "node", "state": {"terminated": {"exitCode": code}}}]},
            }
            for index, code in ((0, self.exit_code), (1, 1))
        ]


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if self.refused(parts.path):
            return
        if parts.path.endswith("/log"):
            self.answer_log(query)
        elif parts.path == PODS:
            name = query["labelSelector"].removeprefix("jobset.sigs.k8s.io/jobset-name=")
            self.answer(200, {"items": self.cluster.pods(name) if name in self.cluster.jobs else []})
        elif (name := parts.path.removeprefix(f"{JOBS}/")) in self.cluster.jobs:
            self.answer(200, self.cluster.job_with_state(name))
        else:
            self.answer(404, {"message": f'trainjobs "{name}" not found'})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == REVIEWS:
            self.cluster.requests.append(("POST", self.path))
            attributes = body["spec"]["resourceAttributes"]
            self.answer(201, {"status": {"allowed": self.cluster.allowed(attributes)}})
            return
        name = body["metadata"]["name"]
        lost = [fault for fault in self.cluster.faults if fault == (500, "POST after")]
        if not lost and self.refused(self.path):
            return
        if name in self.cluster.jobs:
            self.answer(409, {"message": f'trainjobs "{name}" already exists'})
            return
        self.cluster.jobs[name] = body
        self.cluster.on_start(body)
        if lost:  # created, and the answer is an error all the same
            self.cluster.requests.append(("POST", self.path))
            self.cluster.faults.remove(lost[0])
            self.answer(500, {"message": "etcdserver: request timed out"})
            return
        self.answer(201, body)

    def do_DELETE(self) -> None:
        path = urlsplit(self.path).path
        if self.refused(path):
            return
        found = self.cluster.jobs.pop(path.removeprefix(f"{JOBS}/"), None)
        self.answer(200 if found else 404, {"message": "deleted" if found else "not found"})

    def refused(self, path: str) -> bool:
        cluster = self.cluster
        cluster.requests.append((self.command, self.path))
        if cluster.token is not None and self.headers.get("Authorization") != f"Bearer {cluster.token}":
            self.answer(401, {"message": "Unauthorized"})
            return True
        for fault in cluster.faults:
            if re.search(fault[1], f"{self.command} {path}"):
                cluster.faults.remove(fault)
                self.answer(fault[0], {"message": f"fault {fault[0]}"})
                return True
        return False

    def answer_log(self, query: dict[str, str]) -> None:
        """As the kubelet does: from whole seconds on, a line per line; then the connection ends."""
        since = query.get("sinceTime", "")
        lines = [(number, line) for number, line in enumerate(self.cluster.log) if line[0][:19] >= since[:19]]
        unseen = [each for each in lines if each[0] >= self.cluster.lines_given][: self.cluster.lines_per_answer]
        seen = [each for each in lines if each[0] < self.cluster.lines_given]
        self.send_response(200)
        self.end_headers()
        for number, (stamp, text) in seen + unseen:
            self.wfile.write(f"{stamp} {text}\n".encode())
            self.cluster.lines_given = max(self.cluster.lines_given, number + 1)
        if not unseen and query["follow"] == "true" and self.cluster.ends is None:
            time.sleep(0.05)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
