"""Forward spooled events to MLflow; the only module that imports it.

Run as ``python -m pointloom.train.tracking SPOOL`` by ``spool.Tracker``. The process follows its spool file until the
run ends or the stage dies, tells the stage ``run ID``, ``unreachable WHY``, ``reachable`` and ``done`` on its standard
output, and afterwards sends what earlier stages had to leave behind.

Events are sent at least once: next to the spool a ``.sent`` file holds how many lines have arrived.
"""

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from pointloom.errors import BackendError
from pointloom.train.spool import without_login
from pointloom.train.stage_line import StageLine, stage_lives

REQUEST_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
POLL_S = 0.2
RETRY_S = 20.0
PERMANENT = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
MAX_PARAM_LENGTH = 500
MAX_TAG_LENGTH = 5000
ENCODER_ALIAS = "newest"  # MLflow reserves "latest" for its own use


class UnreachableError(Exception):
    """The tracking server did not take an event now; it may later."""


def make_client(uri: str) -> Any:
    """Return an MLflow client with short timeouts.

    Raises:
        BackendError: The store needs a package that is not installed.
    """
    for key, value in REQUEST_SETTINGS.items():
        os.environ.setdefault(key, value)
    try:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri)
    except ModuleNotFoundError as error:
        raise BackendError(
            f"MLflow store {uri} needs the package {error.name!r}, which is not installed; "
            'run: pip install "pointloom[workspace]"'
        ) from error


def make_database(path: Path) -> None:
    """Make a local store beside its place and move it there, so that one whose maker was stopped is never opened."""
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.new")
    for left_over in (partial, partial.with_name(f"{partial.name}-journal")):
        left_over.unlink(missing_ok=True)
    make_client(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.rename(path)


def download_model(uri: str, *, tracking_uri: str) -> Path:
    """Fetch the folder behind an MLflow URI and return its path.

    Args:
        uri: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/NAME/latest`` or ``runs:/ID/encoder``.
        tracking_uri: Where the model is registered.
    """
    client = make_client(tracking_uri)
    if uri.startswith("models:/"):
        uri = _source_of_version(client, uri.removeprefix("models:/"))
    run_id, _, path = uri.removeprefix("runs:/").partition("/")
    return Path(client.download_artifacts(run_id, path, tempfile.mkdtemp(prefix="pointloom-")))


def _source_of_version(client: Any, reference: str) -> str:
    """Return the ``runs:/`` URI of a registered version; MLflow's own look-up ignores a registry that is no default."""
    name, _, alias = reference.partition("@")
    if alias:
        return str(client.get_model_version_by_alias(name, alias).source)
    name, _, version = reference.rpartition("/")
    if version != "latest":
        return str(client.get_model_version(name, version).source)
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        raise LookupError(f"no registered model {name!r}")
    return str(max(versions, key=lambda found: int(found.version)).source)


@contextlib.contextmanager
def locked(path: Path, kind: int) -> Iterator[bool]:
    """Hold a lock (``fcntl.LOCK_*``) on an existing file; yields False when it is not to be had without waiting."""
    with path.open("r+") as file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            yield False
            return
        yield True


class Spool:
    """One spool file and how far it has been sent.

    Args:
        path: The ``.jsonl`` file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.progress_path = path.with_suffix(".sent")
        self.sent = 0
        self.run_id: str | None = None
        if self.progress_path.is_file():
            progress = json.loads(self.progress_path.read_text(encoding="utf-8"))
            self.sent, self.run_id = progress["lines"], progress["run_id"]

    def events(self) -> list[dict[str, Any]]:
        """Return all complete events; a line torn by a crash is left out."""
        *lines, _ = self.path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def save(self, sent: int) -> None:
        """Remember that the first ``sent`` events have arrived."""
        self.sent = sent
        temporary = self.progress_path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"lines": sent, "run_id": self.run_id}), encoding="utf-8")
        temporary.replace(self.progress_path)

    def remove(self) -> None:
        """Delete the files of a run that has arrived completely."""
        self.path.unlink(missing_ok=True)
        self.progress_path.unlink(missing_ok=True)


class Forwarder:
    """Send the events of one spool to MLflow.

    Args:
        spool: Where events come from.
        tell: Called with lines for the stage.
    """

    def __init__(self, spool: Spool, tell: Callable[[str], None]) -> None:
        self.spool = spool
        self.tell = tell
        self.client: Any = None
        self.experiment_id = ""
        self.ended = False
        self._told_before: dict[str, set[int]] = {}
        self._handlers: dict[str, Callable[[list[dict[str, Any]]], None]] = {
            "start": self._start,
            "metrics": self._metrics,
            "tags": self._tags,
            "artifact": self._artifacts,
            "encoder": self._encoders,
            "end": self._end,
        }

    def send_new(self) -> None:
        """Send what has been appended since the last call.

        Raises:
            UnreachableError: The server did not answer; what was not sent stays in the spool.
        """
        events = self.spool.events()
        if self.client is None:
            self._call(lambda: self._connect(events[0]["target"]))
        for kind, group in groupby(events[self.spool.sent :], key=lambda event: str(event["event"])):
            batch = list(group)
            self._call(lambda kind=kind, batch=batch: self._handlers[kind](batch))  # type: ignore[misc]
            self.spool.save(self.spool.sent + len(batch))
        self.ended = bool(events) and events[-1]["event"] == "end"

    def _call(self, action: Callable[[], Any]) -> Any:
        """Run one request: a refusal is noted and skipped, anything else means that the server is unreachable."""
        try:
            return action()
        except Exception as error:  # a stage must not depend on what an MLflow version raises
            if getattr(error, "error_code", None) in PERMANENT or isinstance(error, FileNotFoundError):
                text = without_login(str(error), self.spool.events()[0]["target"]["uri"])
                print(f"{self.spool.path.name}: skipped: {text}", file=sys.stderr, flush=True)
                return None
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnreachableError(without_login(text, self.spool.events()[0]["target"]["uri"])) from error

    def _start(self, events: list[dict[str, Any]]) -> None:
        start = events[0]
        run_id = start["run_id"] or self._find_or_create(start)
        self.spool.run_id = run_id
        self.tell(f"run {run_id}")
        self._tags([{"values": start["tags"]}])
        if start["params"]:
            self._params(run_id, start["params"])

    def _connect(self, target: dict[str, Any]) -> None:
        """Open the store and find or make the experiment; one process at a time makes the tables of a local store."""
        with contextlib.ExitStack() as stack:
            location = None
            if target["artifact_root"]:
                root = Path(target["artifact_root"])
                root.parent.mkdir(parents=True, exist_ok=True)
                lock = root.parent / "mlflow.db.lock"
                lock.touch()
                stack.enter_context(locked(lock, fcntl.LOCK_EX))
                location = root.as_uri()
                make_database(Path(target["uri"].removeprefix("sqlite:///")))
            client = make_client(target["uri"])
            if target.get("experiment_id"):  # events of older versions have none
                self.experiment_id = target["experiment_id"]
            elif experiment := client.get_experiment_by_name(target["experiment"]):
                self.experiment_id = experiment.experiment_id
            else:
                self.experiment_id = client.create_experiment(target["experiment"], artifact_location=location)
        self.client = client

    def _find_or_create(self, start: dict[str, Any]) -> str:
        by_key = f"tags.`pointloom.key` = '{start['key']}'"
        found = self.client.search_runs([self.experiment_id], by_key, max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"mlflow.parentRunId": start["parent_run_id"]} if start["parent_run_id"] else {}
        run = self.client.create_run(
            self.experiment_id,
            start_time=int(start["time"] * 1000),
            run_name=start["name"],
            tags={**tags, "pointloom.key": start["key"]},
        )
        return str(run.info.run_id)

    def _params(self, run_id: str, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_dict(run_id, params, "params.json")
        known = self.client.get_run(run_id).data.params
        flat = [(name, value[:MAX_PARAM_LENGTH]) for name, value in flatten(params)]
        new = [Param(name, value) for name, value in flat if name not in known]
        for first in range(0, len(new), 100):
            self.client.log_batch(run_id, params=new[first : first + 100])
        changed = {f"changed.{name}": value for name, value in flat if known.get(name, value) != value}
        if changed:  # parameters of a run cannot be changed: a resumed run keeps the new values as tags
            self._tags([{"values": changed}])

    def _metrics(self, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(event["time"] * 1000), event["step"])
            for event in events
            for name, value in event["values"].items()
        ]
        if self.spool.events()[0]["run_id"]:
            metrics = [one for one in metrics if one.step == 0 or one.step not in self._steps_told_before(one.key)]
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(self.spool.run_id, metrics=metrics[first : first + 1000])

    def _steps_told_before(self, name: str) -> set[int]:
        """Return the steps of a curve that earlier attempts have sent to the run they share with this one.

        A resumed training tells its whole curve, and MLflow would keep both values of a step.
        """
        if name not in self._told_before:
            history = self.client.get_metric_history(self.spool.run_id, name)
            self._told_before[name] = {point.step for point in history}
        return self._told_before[name]

    def _tags(self, events: list[dict[str, Any]]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value[:MAX_TAG_LENGTH]) for event in events for key, value in event["values"].items()]
        for first in range(0, len(tags), 100):
            self.client.log_batch(self.spool.run_id, tags=tags[first : first + 100])

    def _artifacts(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            path, folder = Path(event["path"]), event["folder"]
            if path.is_dir():
                self.client.log_artifacts(self.spool.run_id, str(path), folder)
            elif path.is_file():
                self.client.log_artifact(self.spool.run_id, str(path), folder)
            else:
                print(f"{self.spool.path.name}: {path} is gone, not kept", file=sys.stderr, flush=True)

    def _encoders(self, events: list[dict[str, Any]]) -> None:
        from mlflow.exceptions import MlflowException

        for event in events:
            run_id, name, path = self.spool.run_id, event["name"], Path(event["path"])
            self.client.log_artifacts(run_id, str(path), "encoder")
            with contextlib.suppress(MlflowException):  # it exists from an earlier run
                self.client.create_registered_model(name)
            card = path / "README.md"
            description = card.read_text(encoding="utf-8")[:MAX_TAG_LENGTH] if card.is_file() else None
            version = self.client.create_model_version(
                name, source=f"runs:/{run_id}/encoder", run_id=run_id, description=description
            )
            self.client.set_registered_model_alias(name, ENCODER_ALIAS, version.version)

    def _end(self, events: list[dict[str, Any]]) -> None:
        attached = self.spool.events()[0]["run_id"]
        if not attached:
            end = events[-1]
            self.client.set_terminated(self.spool.run_id, status=end["status"], end_time=int(end["time"] * 1000))


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values as text: ``{"optim": {"lr": 0.1}}`` gives ``("optim.lr", "0.1")``."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def follow(spool: Spool, tell: Callable[[str], None]) -> bool:
    """Forward a live spool until its run has ended; return True when everything has arrived."""
    forwarder = Forwarder(spool, tell)
    failed_at = None
    while True:
        events = spool.events()
        over = events[-1]["event"] == "end" or not stage_lives(sys.stdin.buffer, POLL_S)
        if over and spool.events()[-1]["event"] != "end":
            close_as_killed(spool)
        if over or failed_at is None or time.monotonic() - failed_at > RETRY_S:
            try:
                forwarder.send_new()
            except UnreachableError as error:
                failed_at = time.monotonic()
                tell(f"unreachable {str(error)[:160]}")
                print(f"{spool.path.name}: {error}", file=sys.stderr, flush=True)
            else:
                if failed_at is not None:
                    tell("reachable")
                failed_at = None
        if over:
            return forwarder.ended and failed_at is None


def close_as_killed(spool: Spool) -> None:
    """Add the end that a killed stage could not write, in place of a line that it could not finish."""
    complete = spool.path.read_bytes()
    complete = complete[: complete.rfind(b"\n") + 1]
    event = {"event": "end", "status": "KILLED", "time": time.time()}
    with spool.path.open("r+b") as file:
        file.seek(len(complete))
        file.write(json.dumps(event).encode() + b"\n")
        file.truncate()


def replay_left_behind(folder: Path) -> None:
    """Send the spools whose stage and sender are both gone, oldest first; stop at the first that cannot be sent."""
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(FileNotFoundError), locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
            if not free:
                continue
            spool = Spool(path)
            events = spool.events()
            if events and events[-1]["event"] != "end":
                close_as_killed(spool)
            try:
                if events:
                    Forwarder(spool, lambda _line: None).send_new()
            except UnreachableError as error:
                print(f"{path.name}: still not sent: {error}", file=sys.stderr, flush=True)
                return
            spool.remove()


def main(path: Path) -> None:
    """Forward one spool, then what was left behind."""
    os.nice(5)
    line = StageLine()
    with locked(path, fcntl.LOCK_SH):  # as the stage does: what lives is not left behind
        spool = Spool(path)
        if not follow(spool, line.tell):
            return
        spool.remove()
    line.tell("done")
    line.close()
    replay_left_behind(path.parent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
