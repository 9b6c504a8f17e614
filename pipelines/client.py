"""A Kubeflow Pipelines server: connect, upload once, start, follow; its errors as sentences."""

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

from pointloom.errors import BackendError

TIMEOUT_S = 30.0
POLL_S = 10.0
MAX_SILENCE_S = 600.0
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
CONFLICT = 409
HINTS = {
    401: "the login was refused or has expired; get a new token or cookie",
    403: "the login may not do this; check the namespace and the roles of the account",
    404: "there is no such thing there; check --host (it ends before /apis) and --namespace",
}


@dataclass(frozen=True)
class Login:
    """How to prove who is asking; at most one is given.

    Attributes:
        token: Bearer token.
        token_file: File with a projected service account token, read again for every request because it is rotated.
        cookie: Session cookie of a browser that has logged in, ``NAME=VALUE``.
    """

    token: str | None = None
    token_file: Path | None = None
    cookie: str | None = None


class Client(kfp.Client):  # type: ignore[misc]
    """KFP's client whose first request fails at once instead of after five attempts that hide why."""

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:  # noqa: ARG002 - the parent's signature
        """Return what the server says about itself."""
        return self._healthz_api.healthz_service_get_healthz(_request_timeout=TIMEOUT_S)


def explained(action: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors of a server into one sentence, without headers: they hold the login."""

    @functools.wraps(action)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return action(*arguments, **named)
        except kfp_server_api.ApiException as error:
            hint = HINTS.get(error.status, "the server has a problem; try again, or ask whoever runs it")
            raise BackendError(f"Kubeflow answered {error.status} {error.reason or ''}: {hint}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise BackendError(
                f"Kubeflow did not answer ({type(error).__name__}); check --host, or forward its port: "
                "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080"
            ) from None

    return call


@explained
def connect(host: str, login: Login, *, namespace: str | None = None) -> Client:
    """Return a client whose requests have a time limit.

    Raises:
        BackendError: The server does not answer, or refuses the login.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = Client(
            host=host,
            namespace=namespace or "kubeflow",
            existing_token=login.token,
            cookies=login.cookie,
            credentials=ServiceAccountTokenVolumeCredentials(str(login.token_file)) if login.token_file else None,
        )
    rest = client._run_api.api_client.rest_client
    original = rest.request

    def request(*arguments: Any, **named: Any) -> Any:
        named["_request_timeout"] = named.get("_request_timeout") or TIMEOUT_S
        return original(*arguments, **named)

    rest.request = request
    return client


@explained
def upload(client: Client, package: Path, *, pipeline: str, version: str) -> tuple[str, str]:
    """Return ids of pipeline and version; what is there already is used again.

    Raises:
        BackendError: The server refuses, or does not answer.
    """
    pipeline_id = client.get_pipeline_id(pipeline)
    if pipeline_id is None:
        try:
            pipeline_id = client.upload_pipeline(str(package), pipeline).pipeline_id
        except kfp_server_api.ApiException as error:
            if error.status != CONFLICT or (pipeline_id := client.get_pipeline_id(pipeline)) is None:
                raise
    found = _find_version(client, pipeline_id, version)
    if found is None:
        try:
            found = client.upload_pipeline_version(str(package), version, pipeline_id).pipeline_version_id
        except kfp_server_api.ApiException as error:
            if error.status != CONFLICT or (found := _find_version(client, pipeline_id, version)) is None:
                raise
    return pipeline_id, found


def _find_version(client: Client, pipeline_id: str, name: str) -> str | None:
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100, sort_by="created_at desc")
        for found in page.pipeline_versions or []:
            if found.display_name == name:
                return str(found.pipeline_version_id)
        token = page.next_page_token or ""
        if not token:
            return None


@explained
def start(
    client: Client,
    *,
    experiment: str,
    name: str,
    pipeline_id: str,
    version_id: str,
    params: dict[str, str],
    schedule: str | None = None,
    namespace: str | None = None,
    service_account: str | None = None,
) -> str:
    """Start a run, or have one started by the clock; returns the id of the run or of the schedule.

    Raises:
        BackendError: The server refuses, or does not answer.
    """
    made = client.create_experiment(experiment, namespace=namespace)
    what = {"params": params, "pipeline_id": pipeline_id, "version_id": version_id, "service_account": service_account}
    if schedule:
        timer = client.create_recurring_run(made.experiment_id, name, cron_expression=schedule, no_catchup=True, **what)
        return str(timer.recurring_run_id)
    return str(client.run_pipeline(made.experiment_id, name, **what).run_id)


def follow(client: Client, run_id: str, *, tell: Callable[[str], None], poll_s: float = POLL_S) -> str:
    """Wait until a run has ended, say when its state changes, and return the last one.

    A server that is away for less than ten minutes is waited for: the run goes on without it.

    Raises:
        BackendError: The login is refused, or the server stays away.
    """
    get_run = explained(client.get_run)
    state, heard = "", time.monotonic()
    while True:
        try:
            found = str(client.get_run(run_id).state or "PENDING")
            heard = time.monotonic()
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            passing = getattr(error, "status", None) in {None, 429, 500, 502, 503, 504}
            if not passing or time.monotonic() - heard > MAX_SILENCE_S:
                found = str(get_run(run_id).state)  # the same error as a sentence
            else:
                tell(f"the server does not answer ({getattr(error, 'status', None) or type(error).__name__}); waiting")
                found = state
        if found != state:
            tell(found.lower())
            state = found
        if state in FINISHED:
            return state
        time.sleep(poll_s)
