"""The few requests to a Kubernetes API server that following a TrainJob needs."""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from pointloom.errors import BackendError

logger = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 30.0
PATIENCE_S = 300.0
"""How long requests are tried again while the server is not there or says that it is in trouble."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
PASSING = {408, 429, 500, 502, 503, 504}
HINT = (
    "give the step's service account a role with create, get, delete on trainjobs (trainer.kubeflow.org), list on "
    "pods and get on pods/log: docs/kubeflow.md"
)


class ApiError(BackendError):
    """The API server has refused, or does not answer.

    Args:
        message: For people.
        status: HTTP status, None without an answer.
    """

    def __init__(self, message: str, *, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class KubernetesApi:
    """An API server and the namespace to work in.

    Args:
        address: ``https://host:port``.
        namespace: Where jobs and pods are.
        token: File with the bearer token, read again for every request because clusters change it; None sends none.
        authority: File with the certificates that the server's is checked against, None takes the system's.
        patience_s: How long to keep trying; tests take less.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str,
        token: Path | None = None,
        authority: Path | None = None,
        patience_s: float = PATIENCE_S,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self.address = address.rstrip("/")
        self.namespace = namespace
        self._token = token
        self._patience_s = patience_s
        self._first_wait_s = first_wait_s
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy or netrc of the surroundings has no business inside of a cluster
        self._session.verify = str(authority) if authority else True

    def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a request, again and again while the server is in trouble, and return its JSON.

        Raises:
            ApiError: It refuses (``status``), or has not answered for long.
        """
        deadline, wait = time.monotonic() + self._patience_s, self._first_wait_s
        while True:
            try:
                answer = self._send(method, path, body=body, query=query)
            except (requests.ConnectionError, requests.Timeout) as error:
                problem, status = f"{type(error).__name__}: {error}", None
            else:
                if answer.status_code not in PASSING:
                    return _checked(answer, method, path)
                problem, status = f"status {answer.status_code}: {answer.text[:200]}", answer.status_code
            if time.monotonic() + wait > deadline:
                raise ApiError(
                    f"Kubernetes: {method} {path} fails since {self._patience_s:.0f} s ({problem})", status=status
                )
            logger.warning("Kubernetes: %s %s: %s; trying again", method, path, problem)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def lines(self, path: str, *, query: Mapping[str, str]) -> Iterator[str]:
        """Yield the lines of a text that the server goes on sending, until it ends or breaks.

        Raises:
            ApiError: The server refuses.
        """
        try:
            with self._send("GET", path, query=query, stream=True) as answer:
                if answer.status_code != 200:
                    _checked(answer, "GET", path)
                for line in answer.iter_lines(decode_unicode=False):
                    yield line.decode("utf-8", errors="replace")
        except requests.RequestException as error:
            logger.debug("Kubernetes: GET %s has broken (%s)", path, error)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        headers = {"Accept": "application/json, */*"}
        if self._token and self._token.is_file():
            headers["Authorization"] = f"Bearer {self._token.read_text(encoding='utf-8').strip()}"
        return self._session.request(
            method, self.address + path, json=body, params=query, headers=headers, timeout=TIMEOUT_S, stream=stream
        )


def own_cluster(*, patience_s: float = PATIENCE_S) -> KubernetesApi | None:
    """Return the API server of the cluster that this pod runs in; None outside of a cluster.

    ``POINTLOOM_KUBERNETES_API`` takes the place of the server's address, for ``kubectl proxy``, and
    ``POINTLOOM_NAMESPACE`` that of the pod's namespace.

    Args:
        patience_s: How long its requests are tried again.
    """
    given = os.environ.get("POINTLOOM_KUBERNETES_API")
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if given is None and host is None:
        return None
    name = ACCOUNT / "namespace"
    namespace = os.environ.get("POINTLOOM_NAMESPACE") or (name.read_text().strip() if name.is_file() else "default")
    if given is not None:
        return KubernetesApi(given, namespace=namespace, patience_s=patience_s)
    address = f"https://[{host}]:{port}" if ":" in str(host) else f"https://{host}:{port}"
    authority = ACCOUNT / "ca.crt" if (ACCOUNT / "ca.crt").is_file() else None
    return KubernetesApi(
        address, namespace=namespace, token=ACCOUNT / "token", authority=authority, patience_s=patience_s
    )


def _checked(answer: requests.Response, method: str, path: str) -> dict[str, Any]:
    """Return the JSON of an answer.

    Raises:
        ApiError: It is a refusal.
    """
    if answer.ok:
        return dict(answer.json())
    try:
        reason = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        reason = answer.text[:200]
    hint = f"; {HINT}" if answer.status_code in {401, 403} else ""
    raise ApiError(
        f"Kubernetes: {method} {path} is refused with status {answer.status_code} ({reason}){hint}",
        status=answer.status_code,
    )
