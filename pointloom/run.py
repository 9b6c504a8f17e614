"""Run a workspace: check all parameters, take the lock, open a parent MLflow run, let DVC run what changed."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pointloom.errors import WorkspaceError
from pointloom.stages.sections import check_params
from pointloom.train.spool import RunStart, Tracker, new_key, spool_folder, tracking_target
from pointloom.workspace import Workspace, open_workspace, require_dvc

logger = logging.getLogger(__name__)

PARENT_WAIT_S = 15.0
BYTES_PER_SHAPE = 400_000  # store of 8,192 points with normals and colour, and the copies that DVC and MLflow keep
BYTES_PER_PIXEL = 1.0  # of a view: JPEG colours and 16-bit PNG depth
BYTES_PER_VIEW_FEATURE = 10_000  # two teachers of 1,280 and 768 numbers, on colours and depth
BYTES_OF_MODELS = 500_000_000


def run_workspace(folder: Path) -> Path:
    """Bring a workspace up to date.

    Returns:
        The report page.

    Raises:
        ParamsError: ``params.yaml`` has a problem; nothing was started.
        WorkspaceError: No workspace, another run is going on, too little disk, or a stage failed.
        BackendError: DVC is not installed.
    """
    require_dvc()
    workspace = open_workspace(folder)
    params = check_params(workspace.folder)
    check_disk(workspace, params)
    check_source(workspace.source)
    with only_run(workspace.folder) as lock:
        before = stage_records(workspace.folder)
        tracker = _open_parent(workspace, params)
        status = "FAILED"
        try:
            _reproduce(workspace.folder, lock, tracker)
            status = "FINISHED"
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            raise
        finally:
            if tracker:
                _record_outcome(tracker, workspace.folder, before)
                tracker.finish(status, max_wait_s=20.0 if status == "FINISHED" else 3.0)
    return workspace.folder / "report" / "report.html"


def disk_needed(workspace: Workspace, params: dict[str, Any]) -> int:
    """Estimate how many bytes a run writes at most.

    Args:
        workspace: Where it runs; the files of its source are counted.
        params: Content of ``params.yaml``, checked.
    """
    from pointloom.render.cameras import LAYOUTS

    source, prepare = workspace.source, params["prepare"]
    shapes = sum(len(files) for _, _, files in os.walk(source)) if source.is_dir() else 0
    if prepare["source"] == "synthetic":
        shapes = prepare["num_objects"] + prepare["unlabelled_synthetic"]
    per_shape = float(BYTES_PER_SHAPE)
    for entry in params["render"].values():
        per_shape += len(LAYOUTS[entry["layout"]]) * entry["size"] ** 2 * BYTES_PER_PIXEL
    for entry in params["embed"].values():
        per_shape += len(LAYOUTS[params["render"][entry["views"]]["layout"]]) * BYTES_PER_VIEW_FEATURE
    return BYTES_OF_MODELS + round(max(shapes, 1000) * per_shape)


def check_disk(workspace: Workspace, params: dict[str, Any]) -> None:
    """Refuse to start when the disk is too small for what will be written.

    Raises:
        WorkspaceError: Too little is free, or the raw shapes are gone.
    """
    if not workspace.source.is_dir():
        raise WorkspaceError(f"the raw shapes {workspace.source} are not there; restore them or edit workspace.yaml")
    needed, free = disk_needed(workspace, params), shutil.disk_usage(workspace.folder).free
    if free < needed:
        raise WorkspaceError(
            f"{workspace.folder}: a run may write {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free; "
            "free some space or make the workspace on another disk"
        )


def check_source(source: Path) -> None:
    """Refuse raw shapes that DVC cannot look at, as it would end without saying what to do.

    Raises:
        WorkspaceError: There are links to nothing, or names that are not UTF-8.
    """
    found = []
    for parent, folders, files in os.walk(source):
        for name in (*folders, *files):
            printable = os.fsencode(name).decode("utf-8", errors="replace")
            if printable != name or not os.path.exists(os.path.join(parent, name)):
                why = "its name is not UTF-8" if printable != name else "a link to nothing"
                found.append(f"{os.fsencode(parent).decode('utf-8', errors='replace')}/{printable} ({why})")
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise WorkspaceError(f"DVC cannot look at {', '.join(found[:3])}{more}; remove or rename them, and run again")


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[IO[str]]:
    """Hold the workspace's lock; it is kept as long as any process of the run lives.

    Raises:
        WorkspaceError: Another run holds it.
    """
    path = folder / "state" / "run.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise WorkspaceError(
                f"another run is going on in {folder} ({lock.read().strip() or 'just started'}); "
                "wait for it, press Ctrl-C where it was started, or use another workspace"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield lock


def _reproduce(folder: Path, lock: IO[str], tracker: Tracker | None) -> None:
    """Run ``dvc repro`` in a process group of its own and pass Ctrl-C and SIGTERM on to all of it."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment.setdefault("GOMP_SPINCOUNT", "20000")
    environment.pop("MLFLOW_RUN_ID", None)
    parent_id = tracker.wait_for_run_id(PARENT_WAIT_S) if tracker else None
    if parent_id:
        environment["POINTLOOM_PARENT_RUN_ID"] = parent_id
    child = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        process_group=0,
        pass_fds=[lock.fileno()],
    )
    lock.write(f"; to stop it from elsewhere: kill -- -{child.pid}")
    lock.flush()
    try:
        code = child.wait()
    except BaseException as stop:
        _stop(child, signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
        raise
    if code != 0:
        raise WorkspaceError(
            "a stage failed; its message is above. What was finished is kept: once the cause is removed, "
            "`pointloom run` continues from there"
        )


def _stop(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ask the group to stop and wait; a second Ctrl-C kills it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
        try:
            child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise


def stage_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the content of ``reports/**.json`` by stage, ``finetune/mae`` for example; damaged files are left out."""
    records = {}
    for path in sorted((folder / "reports").rglob("*.json")):
        with contextlib.suppress(json.JSONDecodeError, OSError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "run" in content:
                records[str(path.relative_to(folder / "reports").with_suffix(""))] = content
    return records


def _open_parent(workspace: Workspace, params: dict[str, Any]) -> Tracker | None:
    target = tracking_target(workspace.folder)
    if target is None:
        return None
    start = RunStart(
        key=new_key(),
        target=target,
        name=f"run {time.strftime('%Y-%m-%d %H:%M')}",
        run_id=os.environ.get("MLFLOW_RUN_ID") or None,
        parent_run_id=os.environ.get("POINTLOOM_PARENT_RUN_ID") or None,
        time=time.time(),
        tags={
            "stage": "run",
            "mlflow.source.name": "pointloom run",
            "workspace": str(workspace.folder),
            "pipeline": str(workspace.settings.get("pipeline", "pretrain")),
            "profile": str(workspace.settings.get("profile", "")),
            "source": str(workspace.settings["source"]),
        },
        params=params,
    )
    return Tracker(start, spool_folder(workspace.folder / "state"))


def _record_outcome(tracker: Tracker, folder: Path, before: dict[str, dict[str, Any]]) -> None:
    """Link the parent run to every stage, those that DVC skipped included, and copy headline numbers and report."""
    for name, record in stage_records(folder).items():
        key = name.replace("/", ".")
        again = record["run"] == before.get(name, {}).get("run")
        tags = {f"stage.{key}.run_id": str(record["run"].get("mlflow_run_id")), f"stage.{key}.skipped": str(again)}
        tracker.set_tags(tags)
        values = {f"{name}/{metric}": value for metric, value in record["metrics"].items()}
        if values:
            tracker.log_metrics(values, step=0)
    report = folder / "report"
    if report.is_dir():
        tracker.log_artifact(report, folder="report")
