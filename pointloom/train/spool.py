"""What a stage tells the experiment tracker, written to disk first and sent by a process of its own.

A stage appends every event to a JSON-lines file under ``state/tracking`` and starts one sender
(``python -m pointloom.train.tracking``), which imports MLflow and forwards the events. So a slow or dead tracking
server never stops or slows a stage, a killed stage is still closed as killed, and what could not be sent is sent by
the sender of the next stage. This module needs nothing but the standard library and PyYAML.
"""

import fcntl
import json
import logging
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import yaml

logger = logging.getLogger(__name__)

MAX_WAIT_S = 20.0
"""Longest time that the end of a stage waits for the sender of a server that answers."""


@dataclass(frozen=True)
class TrackingTarget:
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI.
        experiment: Name of the MLflow experiment.
        artifact_root: Folder for artefacts when the store is a local database, None when a server keeps them.
        experiment_id: Of an experiment that is there, used in place of the name; Kubeflow's MLflow plugin gives it.
    """

    uri: str
    experiment: str
    artifact_root: str | None = None
    experiment_id: str | None = None


@dataclass(frozen=True)
class RunStart:
    """First event of every spool file: which run the other events belong to.

    Attributes:
        key: Random name of the run, known before any server has answered; kept as the tag ``pointloom.key``.
        target: Where to record.
        name: Run name as shown in the UI.
        run_id: Run to attach to (``MLFLOW_RUN_ID``); such a run is not ended by us.
        parent_run_id: Parent of a new run.
        time: Start, seconds since the epoch.
        tags: Tags to set at once.
        params: Nested parameters; also kept whole as ``params.json``.
    """

    key: str
    target: TrackingTarget
    name: str
    run_id: str | None
    parent_run_id: str | None
    time: float
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)


def tracking_target(workspace: Path) -> TrackingTarget | None:
    """Return where to record: ``MLFLOW_TRACKING_URI``, else the ``tracking_uri`` of ``workspace.yaml``, else None.

    A relative sqlite path is taken relative to the workspace; in a copy that DVC makes of it for a queued experiment,
    and deletes afterwards, relative to the workspace that was copied. Name and password in the address of a server are
    put where MLflow's client looks for them, so that the address can be written down and shown.
    """
    settings: dict[str, Any] = {}
    file = workspace / "workspace.yaml"
    if file.is_file():
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.get("tracking_uri")
    if not uri:
        return None
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or settings.get("experiment") or "pointloom"
    artifact_root = None
    if uri.startswith("sqlite:///"):
        database = (_lasting(workspace.absolute()) / uri.removeprefix("sqlite:///")).resolve()
        uri = f"sqlite:///{database}"
        artifact_root = str(database.parent / "mlartifacts")
    parts = urlsplit(uri)
    if parts.scheme in {"http", "https"} and parts.password:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username or ""))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password))
        uri = without_login(uri, uri)
    experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID") or None
    return TrackingTarget(uri=uri, experiment=experiment, artifact_root=artifact_root, experiment_id=experiment_id)


def _lasting(workspace: Path) -> Path:
    """Return the workspace of which DVC has made this one for a queued experiment, or this one."""
    for place in workspace.parents:
        if place.parts[-3:] == (".dvc", "tmp", "exps"):
            return place.parents[2]
    return workspace


def without_login(text: str, uri: str) -> str:
    """Return a text, such as an error, in which the name and password of an address are left out."""
    login, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(login + at, "") if login else text


def spool_folder(state: Path) -> Path:
    """Return a writable folder for spool files: inside the resume state, else in the system's temporary folder."""
    for folder in (state / "tracking", Path(tempfile.gettempdir()) / f"pointloom-tracking-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"no writable folder for tracking events: tried {state / 'tracking'} and {tempfile.gettempdir()}")


class Tracker:
    """Append events to a spool file and let a sender process forward them.

    Args:
        start: The run.
        folder: Folder of spool files.
    """

    def __init__(self, start: RunStart, folder: Path) -> None:
        self.start = start
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(start.time))
        self.path = folder.absolute() / f"{stamp}-{start.key}.jsonl"
        self._file = self._create()
        self.sender = self._start_sender()
        self._answers: dict[str, str] = {}
        self._pending = b""

    def _create(self) -> IO[str]:
        """Make the spool file; a lock on it says that its stage lives, so that no other sender takes it."""
        hidden = self.path.with_suffix(".new")
        file = hidden.open("w", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(json.dumps({"event": "start", **asdict(self.start)}) + "\n")
        file.flush()
        hidden.rename(self.path)
        return file

    def _write(self, event: Mapping[str, Any]) -> None:
        if self._file.closed:
            raise ValueError(f"run {self.start.name} is finished: event {event.get('event')!r} comes too late")
        self._file.write(json.dumps({"time": time.time(), **event}) + "\n")
        self._file.flush()

    def _start_sender(self) -> subprocess.Popen[bytes] | None:
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_RUN_ID"}
        with (self.path.parent / "sender.log").open("ab") as log:
            try:
                return subprocess.Popen(
                    [sys.executable, "-m", "pointloom.train.tracking", str(self.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                logger.warning("tracking sender did not start (%s): events stay in %s", error, self.path)
                return None

    def log_metrics(self, values: Mapping[str, float | int], *, step: int) -> None:
        """Record numbers at a step; slashes in names make groups, characters that MLflow refuses become ``_``."""
        clean = {re.sub(r"[^\w\-./: ]", "_", key): float(value) for key, value in values.items()}
        self._write({"event": "metrics", "step": step, "values": clean})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._write({"event": "tags", "values": {key: str(value) for key, value in tags.items()}})

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Keep a file, or a folder with all it holds, with the run."""
        self._write({"event": "artifact", "path": str(path.absolute()), "folder": folder})

    def register_encoder(self, path: Path, *, name: str) -> None:
        """Keep the folder of an encoder with the run; register it as ``EXPERIMENT-NAME`` with the alias ``newest``."""
        self._write(
            {"event": "encoder", "path": str(path.absolute()), "name": f"{self.start.target.experiment}-{name}"}
        )

    def finish(self, status: str, *, max_wait_s: float = MAX_WAIT_S) -> str | None:
        """End the run and wait a bounded time for the sender.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            max_wait_s: Longest wait; a server that does not answer is not waited for.

        Returns:
            The MLflow run id, or None when the server has not answered.
        """
        self._write({"event": "end", "status": status})
        self._file.close()
        answers = self._read_answers(until="done", max_wait_s=max_wait_s)
        if "done" not in answers:
            reason = answers.get("unreachable", "the sender has not finished")
            logger.warning(
                "tracking: %s has not taken everything (%s); the rest is kept in %s and sent by the next stage",
                without_login(self.start.target.uri, self.start.target.uri),
                reason,
                self.path,
            )
        return answers.get("run")

    def wait_for_run_id(self, max_wait_s: float) -> str | None:
        """Wait a bounded time until the run exists on the server; return its id or None."""
        return self._read_answers(until="run", max_wait_s=max_wait_s).get("run")

    def _read_answers(self, *, until: str, max_wait_s: float) -> dict[str, str]:
        """Read ``word value`` lines of the sender until the word ``until``, it gives up, ends, or time is over."""
        if self.sender is None or self.sender.stdout is None:
            return self._answers
        deadline = time.monotonic() + max_wait_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.sender.stdout, selectors.EVENT_READ)
            while until not in self._answers and "unreachable" not in self._answers:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    break
                chunk = os.read(self.sender.stdout.fileno(), 65536)
                if not chunk:
                    break
                *lines, self._pending = (self._pending + chunk).split(b"\n")
                for line in lines:
                    word, _, value = line.decode("utf-8", errors="replace").partition(" ")
                    self._answers[word] = value
                    if word == "reachable":
                        self._answers.pop("unreachable", None)
        return self._answers


def new_key() -> str:
    """Return a fresh random key of a run."""
    return uuid.uuid4().hex[:16]
