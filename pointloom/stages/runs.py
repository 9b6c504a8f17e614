"""One run of a stage: what it cost, what it was made from, its headline numbers, and its record in MLflow."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from pointloom._version import __version__
from pointloom.stages.executor import describe
from pointloom.stages.fan_out import Shard
from pointloom.train.processes import is_leader
from pointloom.train.spool import RunStart, Tracker, new_key, spool_folder, tracking_target

logger = logging.getLogger(__name__)

SAMPLE_S = 0.5
VERSIONED = ("torch", "numpy", "scikit-learn", "h5py", "trimesh", "numba")


class StageRun:
    """What a stage may tell about itself while it runs; made by ``stage_run``.

    Args:
        tracker: Where events go, None when no tracking is configured.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker
        self.headline: dict[str, float] = {}
        self._ends_of_curves: dict[str, float] = {}

    def log_metrics(self, values: Mapping[str, float | int], *, step: int) -> None:
        """Record numbers at a step, for example ``{"loss": 1.0}``; slashes group them in the UI."""
        self._ends_of_curves.update({key: float(value) for key, value in values.items()})
        if self._tracker:
            self._tracker.log_metrics(values, step=step)

    def final_metrics(self) -> dict[str, float]:
        """Return the headline numbers but those that a curve ends with: as a point of their own they would bend it."""
        return {key: value for key, value in self.headline.items() if self._ends_of_curves.get(key) != value}

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Keep a copy of a file or a folder with the run."""
        if self._tracker:
            self._tracker.log_artifact(path, folder=folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        if self._tracker:
            self._tracker.set_tags(tags)

    def register_encoder(self, folder: Path, *, name: str) -> None:
        """Keep the folder of an encoder and register it as the newest version of the model ``EXPERIMENT-NAME``."""
        if self._tracker:
            self._tracker.set_tags({"encoder.sha256": describe(folder)["checkpoint_sha256"]})
            self._tracker.register_encoder(folder, name=name)

    def summary(self, values: Mapping[str, float | int]) -> None:
        """Add headline numbers: they end up in the metrics file and as final metrics of the run."""
        self.headline.update({key: float(value) for key, value in values.items()})


class CostMeter:
    """Wall time, CPU time and peak memory of this process and all its children, killed and finished ones included.

    Args:
        ignored_pid: A child that does not belong to the work (the tracking sender).
    """

    def __init__(self, ignored_pid: int | None) -> None:
        self._ignored_pid = ignored_pid
        self._process = psutil.Process()
        self._started = time.perf_counter()
        self._cpu_before = self._cpu_seconds()
        self._peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cost-meter", daemon=True)
        self._thread.start()

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [child for child in self._process.children(recursive=True) if child.pid != self._ignored_pid]
        return []

    def _cpu_seconds(self) -> float:
        own, reaped = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        total = own.ru_utime + own.ru_stime + reaped.ru_utime + reaped.ru_stime
        for child in self._children():
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            total = 0
            for process in [self._process, *self._children()]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            self._peak_bytes = max(self._peak_bytes, total)

    def read(self) -> dict[str, float]:
        """Stop measuring; return ``wall_s``, ``cpu_s`` and ``peak_memory_mb`` (sum of resident sets, 10^6 bytes)."""
        self._stop.set()
        self._thread.join()
        own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "wall_s": round(time.perf_counter() - self._started, 3),
            "cpu_s": round(self._cpu_seconds() - self._cpu_before, 3),
            "peak_memory_mb": round(max(self._peak_bytes, own_peak) / 1e6, 1),
        }


@contextlib.contextmanager
def stage_run(
    stage: str,
    *,
    name: str = "",
    params: BaseModel,
    inputs: Mapping[str, Path],
    metrics: Path,
    state: Path = Path("state"),
    shard: Shard | None = None,
) -> Iterator[StageRun]:
    """Run a stage: measure it, record it in MLflow, and write its metrics file when it succeeds.

    The metrics file is ``{"metrics": {...headline numbers}, "run": {...cost and lineage}}``, written atomically. When
    the stage raises, the run is marked FAILED (KILLED after Ctrl-C or SIGTERM), no file is written, and the exception
    goes on. Of several training processes only the leader is recorded.

    Args:
        stage: Name of the stage.
        name: Which one of several (``mae`` of ``finetune.mae``), empty when there is one.
        params: Validated parameters.
        inputs: Input artefacts by name; the digest of ``dataset`` becomes lineage.
        metrics: JSON file to write.
        state: Resume state; events for MLflow are spooled below it.
        shard: Part of the stage that this is: it is recorded, and writes no metrics file.
    """
    if not is_leader():
        yield StageRun(None)
        return
    lineage = _lineage(stage, name, params, inputs)
    tracker = _open_tracker(lineage, params, inputs, state, shard)
    run = StageRun(tracker)
    meter = CostMeter(tracker.sender.pid if tracker and tracker.sender else None)
    try:
        yield run
    except BaseException as error:
        meter.read()
        if tracker:
            interrupted = not isinstance(error, Exception)
            tracker.set_tags({"error": f"{type(error).__name__}: {error}"})
            tracker.finish("KILLED" if interrupted else "FAILED", max_wait_s=0.0 if interrupted else 5.0)
        raise
    cost = {**meter.read(), "load_average": round(os.getloadavg()[0], 2)}
    label = " ".join(part for part in (stage, name, f"shard {shard}" if shard else "") if part)
    logger.info(
        "%s: done in %.1f s (%.1f CPU s, %.0f MB)", label, cost["wall_s"], cost["cpu_s"], cost["peak_memory_mb"]
    )
    run_id = None
    if tracker:
        tracker.set_tags({"bottleneck": bottleneck(cost, run.headline)})
        tracker.log_metrics({**run.final_metrics(), **{f"cost/{key}": value for key, value in cost.items()}}, step=0)
        run_id = tracker.finish("FINISHED")
    if shard is None:
        write_json(metrics, {"metrics": run.headline, "run": {**lineage, **cost, "mlflow_run_id": run_id}})


def bottleneck(cost: Mapping[str, float], headline: Mapping[str, float]) -> str:
    """Return a line for people: ``loader-bound 12 %, 1.9 cores busy``; of stages that do not train, its end."""
    busy = f"{cost['cpu_s'] / max(cost['wall_s'], 1e-3):.1f} cores busy"
    waited = [value for name, value in headline.items() if name.endswith("percent_waiting_for_data")]
    return f"loader-bound {max(waited):.0f} %, {busy}" if waited else busy


def _lineage(stage: str, name: str, params: BaseModel, inputs: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "stage": stage,
        "name": name,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(),
        "git": code_revision(),
        "params_sha256": params_digest(params),
        "data_digest": data_digest(inputs),
        "inputs": input_digests(inputs),
        "kfp_run_id": os.environ.get("KFP_RUN_ID") or None,
    }


def _open_tracker(
    lineage: Mapping[str, Any], params: BaseModel, inputs: Mapping[str, Path], state: Path, shard: Shard | None
) -> Tracker | None:
    target = tracking_target(Path.cwd())
    if target is None:
        logger.info("tracking is off: neither MLFLOW_TRACKING_URI nor a workspace.yaml with tracking_uri is set")
        return None
    git = lineage["git"]
    tags = {
        "stage": lineage["stage"],
        "mlflow.user": _user(),
        "mlflow.source.name": f"pointloom {lineage['stage']}",
        "workspace": str(Path.cwd()),
        "params.sha256": lineage["params_sha256"],
        "data.digest": lineage["data_digest"] or "",
        "shard": str(shard or ""),
        "kfp.run_id": lineage["kfp_run_id"] or "",
        "git.revision": git["revision"] or "",
        "git.dirty": str(git["dirty"]),
        **{f"input.{key}": str(path) for key, path in inputs.items()},
        **{f"input.{key}.digest": digest for key, digest in lineage["inputs"].items()},
    }
    start = RunStart(
        key=new_key(),
        target=target,
        name="/".join(part for part in (lineage["stage"], lineage["name"], str(shard or "")) if part),
        run_id=os.environ.get("MLFLOW_RUN_ID") or None,
        parent_run_id=os.environ.get("POINTLOOM_PARENT_RUN_ID") or None,
        time=time.time(),
        tags={key: value for key, value in tags.items() if value},
        params=params.model_dump(mode="json"),
    )
    return Tracker(start, spool_folder(state))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is either the old one or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def params_digest(params: BaseModel) -> str:
    """Return the sha256 of validated parameters; 300 and 300.0 give the same."""
    return hashlib.sha256(json.dumps(params.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def data_digest(inputs: Mapping[str, Path]) -> str | None:
    """Return the digest of the prepared store among the inputs, None when there is none."""
    description = inputs.get("dataset", Path()) / "dataset.json"
    if not description.is_file():
        return None
    digest = json.loads(description.read_text(encoding="utf-8")).get("digest")
    return str(digest) if digest else None


def input_digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Return digest or checksum of every input that has one, by name."""
    described = {name: describe(path) for name, path in inputs.items()}
    found = {name: values.get("digest", values.get("checkpoint_sha256")) for name, values in described.items()}
    return {name: digest for name, digest in found.items() if digest}


def versions() -> dict[str, str]:
    """Return the versions of pointloom, Python and the libraries that decide numbers."""
    found = {"pointloom": __version__, "python": platform.python_version()}
    for package in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def code_revision() -> dict[str, Any]:
    """Return the git revision of pointloom's own source and whether it was edited; None for an installed package.

    Images say in ``POINTLOOM_GIT_REVISION`` what they were built from, with ``-edited`` where files differed from it.
    """
    package = Path(__file__).resolve().parents[1]
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        revision = _git(package, "rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(_git(package, "status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        built_from = os.environ.get("POINTLOOM_GIT_REVISION", "")
        revision = built_from.removesuffix("-edited")
        return {"revision": revision or None, "dirty": built_from != revision if revision else None}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):  # a container may run under a uid without a name
        import getpass

        return getpass.getuser()
    return str(os.getuid())
