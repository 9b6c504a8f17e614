"""Ask the servers that a team shares, as their clients would: MLflow, Kubeflow Pipelines, the store behind DVC."""

import base64
import configparser
import importlib.util
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pointloom.examination import Check

TIMEOUT_S = 5.0


def check_tracking_server(uri: str, *, waiting: str = "") -> Check:
    """Ask an MLflow server for an experiment: that needs its name and, where it has users, a password.

    Args:
        uri: ``http://`` or ``https://``; a password in it is used and not shown.
        waiting: What else to say about runs that were not sent yet.
    """
    shown = _without_password(uri)
    status, body = ask(f"{shown}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default", _login(uri))
    if status in {200, 404}:  # 404: the server works and has no such experiment
        return Check("ok", "tracking", f"{shown} answers{waiting}")
    if status == 401:
        hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"
        return Check("bad", "tracking", f"{shown} asks for a password; {hint}{waiting}")
    if status == 403 and "host" in body.lower():
        hint = f"its administrator adds {urlsplit(shown).netloc} to --allowed-hosts"
        return Check("bad", "tracking", f"{shown} does not go by this name; {hint}{waiting}")
    if status == 403:
        return Check("bad", "tracking", f"{shown} knows you, and gives you no permission; ask for it{waiting}")
    problem = body if status is None else f"status {status}"
    return Check("info", "tracking", f"{shown} does not answer ({problem}); events are kept and sent later{waiting}")


def check_kubeflow(endpoint: str) -> Check:
    """Ask Kubeflow Pipelines for its health; a page instead of JSON is the login of the proxy before it."""
    shown = _without_password(endpoint).rstrip("/")
    token = os.environ.get("KF_PIPELINES_TOKEN")
    login = {"Authorization": f"Bearer {token}"} if token else {}
    status, body = ask(f"{shown}/apis/v2beta1/healthz", login)
    if status == 200 and (said := _mapping(body)) is not None:
        return _kubeflow_version(shown, said)
    if token and status in {200, 401, 403}:
        better = "kubectl create token ACCOUNT --audience=pipelines.kubeflow.org"
        return Check("bad", "Kubeflow", f"{shown} does not take KF_PIPELINES_TOKEN, which may have expired; {better}")
    if status in {200, 401, 403}:
        return Check("info", "Kubeflow", f"{shown} asks for a login; submit with --token-file or --cookie-file")
    problem = body if status is None else f"status {status}"
    return Check("bad", "Kubeflow", f"{shown} does not answer ({problem}); see KF_PIPELINES_ENDPOINT")


def _kubeflow_version(shown: str, said: Mapping[str, Any]) -> Check:
    """Judge a healthy answer; only some name a version: the UI, and API servers before 2."""
    if said.get("apiServerReady") is False:
        hint = "kubectl --namespace kubeflow get pods --selector app=ml-pipeline"
        return Check("bad", "Kubeflow", f"{shown}: the UI answers, the API server behind it does not; {hint}")
    tag = next((str(said[key]) for key in ("apiServerTagName", "tag_name", "frontendTagName") if said.get(key)), "")
    found = re.match(r"v?(\d+)\.(\d+)", tag)
    version = (int(found[1]), int(found[2])) if found else None
    if version and version < (2, 0):
        return Check("bad", "Kubeflow", f"{shown} is version {tag}; pipelines are for 2, the webhook for 2.6")
    if version and version < (2, 6):
        return Check("info", "Kubeflow", f"{shown} is version {tag}; before 2.6 set webhook: null in the cluster file")
    return Check("ok", "Kubeflow", f"{shown} answers, {f'version {tag}' if tag else 'and does not say its version'}")


def check_remotes(folder: Path) -> Iterator[Check]:
    """Look at the remotes of a workspace's DVC: is there the folder, does the store answer."""
    config = configparser.ConfigParser(interpolation=None)
    config.read([folder / ".dvc" / "config", folder / ".dvc" / "config.local"], encoding="utf-8")
    for section in config.sections():
        if "remote" not in section:
            continue
        name, url = section.strip("'\"").removeprefix("remote").strip(' "'), config[section].get("url", "")
        title = f"remote {name}"
        if url.startswith("s3://"):
            yield _check_store(title, url, config[section])
        elif "://" not in url:
            path = (folder / ".dvc" / url).resolve()
            there = path.is_dir() and os.access(path, os.W_OK)
            yield Check("ok" if there else "bad", title, str(path) if there else f"{path} is not a writable folder")


def _check_store(title: str, url: str, remote: Mapping[str, str]) -> Check:
    """List one file with the keys that DVC would use: that needs a key, the store, the bucket and its permission."""
    if importlib.util.find_spec("dvc_s3") is None:
        return Check("bad", title, f"{url} needs: pip install dvc-s3")
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    endpoint = _without_password(remote["endpointurl"]) if remote.get("endpointurl") else None
    shown = f"{url} at {endpoint or 'AWS'}"
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    try:
        _s3(remote, endpoint).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except NoCredentialsError:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `dvc remote modify --local` (never in git)"
        return Check("bad", title, f"{shown}: no key is found; {hint}")
    except ClientError as error:
        said = f"{error.response['Error'].get('Code')}: {error.response['Error'].get('Message')}"
        return Check("bad", title, f"{shown} refuses: {said}; see docs/team.md, DVC")
    except (BotoCoreError, ValueError) as error:
        return Check("bad", title, f"{shown}: {error}; see `dvc remote list`")
    return Check("ok", title, f"{shown} answers, and lists the bucket")


def _s3(remote: Mapping[str, str], endpoint: str | None) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    session = botocore.session.Session(profile=remote.get("profile"))
    if "credentialpath" in remote:
        session.set_config_variable("credentials_file", remote["credentialpath"])
    unsigned = {"signature_version": UNSIGNED} if remote.get("allow_anonymous_login") == "true" else {}
    return session.create_client(
        "s3",
        region_name=remote.get("region"),
        endpoint_url=endpoint,
        verify={"true": None, "false": False}.get(remote.get("ssl_verify", "true"), remote.get("ssl_verify")),
        aws_access_key_id=remote.get("access_key_id"),
        aws_secret_access_key=remote.get("secret_access_key"),
        aws_session_token=remote.get("session_token"),
        config=Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"max_attempts": 0}, **unsigned),
    )


def ask(url: str, headers: dict[str, str]) -> tuple[int | None, str]:
    """GET an address: status and text, or None and why there was none; no other server is sent the headers."""
    try:
        request = urllib.request.Request(url)
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read(100_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(100_000).decode(errors="replace")
    except (OSError, ValueError) as error:
        return None, str(getattr(error, "reason", error))


def _login(uri: str) -> dict[str, str]:
    """Return the header that MLflow's client would send."""
    parts = urlsplit(uri)
    name = os.environ.get("MLFLOW_TRACKING_USERNAME", parts.username)
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", parts.password)
    if name and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def _mapping(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
