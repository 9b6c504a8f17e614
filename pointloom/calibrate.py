"""Measure what the stages of a profile take here: each runs on a few generated objects, at several sizes.

Stages that train do so for one epoch, and, but for the smallest size, once more for some epochs: what an epoch takes,
and what is done once whatever the epochs, are told apart.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from pointloom.plan import Rate, Rates, step_name, steps, trainings_of, units_of
from pointloom.stages import STAGES
from pointloom.stages.prepare import SCENE_SOURCES
from pointloom.stages.signature import read_signature

SIZES = (60, 240, 960)
"""Numbers of objects; the last is for steps that are quick, of which smaller ones would show little but the start."""

QUICK_S = 60.0
"""What a quick step takes at most at the size before the last."""

LONGER = 4
"""Epochs of the run that tells epochs from the rest."""

PLACES = {
    "dataset": "data/objects",
    "data": "data",
    "models": "models",
    "results": "results",
    "runs": "reports",
    "report": "report",
    "source": "raw",
}
"""Where the arguments of stages that name no entry are, as in ``dvc.yaml``."""


def shortened(stage: str, values: Mapping[str, Any], *, objects: int, epochs: int = 1) -> dict[str, Any]:
    """Return parameters for a short run: generated objects, few epochs, one seed, batches that fit."""
    short: dict[str, Any] = deepcopy(dict(values))
    if stage == "prepare":
        made = "synthetic_rooms" if short["source"] in SCENE_SOURCES else "synthetic"
        short |= {"source": made, "num_objects": objects, "unlabelled_synthetic": 0}
        return short | {"variant": None, "train_list": None, "test_list": None}
    if "seeds" in short:
        short["seeds"] = short["seeds"][:1]
    if "epochs" in short:
        short["epochs"] = epochs
    if "label_epochs" in short:
        short["label_epochs"] = {1.0: epochs}
    if "batch_size" in short:
        short["batch_size"] = min(short["batch_size"], max(2, objects // 4))
    return short


def measure(
    params: Mapping[str, Any],
    folder: Path,
    *,
    tell: Callable[[str], None],
    stages: Collection[str] = tuple(STAGES),
    sizes: tuple[int, int, int] = SIZES,
) -> Rates:
    """Run every step at two or three sizes, trainings also for more epochs, and fit the rates.

    Args:
        params: All sections of a profile, checked.
        folder: Empty folder to work in.
        tell: Called with a line per step.
        stages: Which stages; each needs what the ones before it make.
        sizes: Numbers of objects.
    """
    measured: dict[str, list[dict[str, float]]] = {}
    missing: dict[str, str] = {}
    for size in sizes:
        workspace = folder / str(size)
        (workspace / "raw").mkdir(parents=True)
        for stage, entry, values in steps(params):
            name = step_name(stage, entry)
            done = measured.setdefault(name, [])
            if name in missing or stage not in stages or (size == sizes[2] and done[-1]["wall_s"] > QUICK_S):
                continue
            for epochs in (1, LONGER) if size != sizes[0] and trainings_of(values) else (1,):
                short = shortened(stage, values, objects=size, epochs=epochs)
                outcome = run_step(stage, entry, short, params, workspace)
                if isinstance(outcome, str):
                    if size != sizes[2]:  # there, what it needs may have been left out
                        missing[name] = outcome
                    tell(f"{name}: {size} objects: not measured: {outcome}")
                    break
                units = units_of(stage, short, objects=size, test_fraction=params["prepare"]["test_fraction"])
                done.append(outcome | {"units": units, "objects": float(size), "epochs": float(epochs)})
                tell(f"{name}: {size} objects, {epochs} epoch(s), {outcome['wall_s']:.1f} s")
    gpu = _gpu()
    rates = {
        name: fitted(points, gpu=gpu is not None and name.partition(".")[0] != "prepare")
        for name, points in measured.items()
        if points and name not in missing
    }
    return Rates(machine=f"{_machine()}, {gpu or 'no GPU'}", rates=rates, missing=missing)


def run_step(
    stage: str, entry: str, values: Mapping[str, Any], params: Mapping[str, Any], workspace: Path
) -> dict[str, float] | str:
    """Run a step as a process of its own; returns time and size, or why there are none."""
    metrics = workspace / "reports" / stage / f"{entry}.json" if entry else workspace / "reports" / f"{stage}.json"
    given = dict(_paths(stage, entry, params)) | {"metrics": str(metrics)}
    file = workspace / f"{step_name(stage, entry)}.yaml"
    file.write_text(yaml.safe_dump({"step": dict(values)}), encoding="utf-8")
    command = [sys.executable, "-m", "pointloom.cli", stage, "--params", f"{file}:step"]
    command += [word for name, path in given.items() for word in (f"--{name}", path)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("Error:")]
        return (errors or said or [f"exit code {done.returncode}"])[-1].removeprefix("Error: ")
    run = json.loads(metrics.read_text(encoding="utf-8"))["run"]
    made = [name for name, each in read_signature(stage, STAGES[stage]).artifacts.items() if each.direction == "out"]
    files = [path for name in made if name != "metrics" for path in (workspace / given[name]).rglob("*")]
    return {"wall_s": run["wall_s"], "cpu_s": run["cpu_s"], "bytes": float(sum(path.stat().st_size for path in files))}


def _paths(stage: str, entry: str, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the arguments of a stage and where they are, as ``dvc.yaml`` has it."""
    values = params[stage][entry] if entry else params[stage]
    for name, artifact in read_signature(stage, STAGES[stage]).artifacts.items():
        own = entry if artifact.direction == "out" else values.get(name, "")
        if name in ("views", "captions", "features"):
            yield name, f"data/{name}/{own}"
        elif name in ("encoder", "teacher"):
            yield name, f"models/{own}"
        elif name == "result":
            yield name, f"results/{stage}/{entry}"
        elif name in PLACES:
            yield name, PLACES[name]


def fitted(points: Sequence[Mapping[str, float]], *, gpu: bool) -> Rate:
    """Return the rates of a step from its measurements.

    Args:
        points: Measurements, smaller sizes first; those with more than one epoch tell epochs from the rest.
        gpu: Whether they were on a GPU.
    """
    single = [point for point in points if point["epochs"] == 1]
    first, second = single[0], single[-1]
    longer = next((point for point in points if point["epochs"] > 1 and point["objects"] == second["objects"]), None)
    start, each, unit = _parts("wall_s", first, second, longer)
    start_cpu, each_cpu, unit_cpu = _parts("cpu_s", first, second, longer)
    start_bytes, unit_bytes = _line(*((point["objects"], point["bytes"]) for point in (first, second)))
    return Rate(
        start_s=start,
        unit_s=unit,
        start_cpu_s=start_cpu,
        unit_cpu_s=unit_cpu,
        object_s=each,
        object_cpu_s=each_cpu,
        start_bytes=start_bytes,
        unit_bytes=unit_bytes,
        gpu=gpu,
    )


def _parts(
    key: str, first: Mapping[str, float], second: Mapping[str, float], longer: Mapping[str, float] | None
) -> tuple[float, float, float]:
    """Return what belongs to the start, to every object, and to every unit."""
    unit = (longer[key] - second[key]) / (longer["units"] - second["units"]) if longer else 0.0
    if unit <= 0:
        start, unit = _line(*((point["units"], point[key]) for point in (first, second)))
        return start, 0.0, unit
    rest = [(point["objects"], max(0.0, point[key] - unit * point["units"])) for point in (first, second)]
    if rest[1][1] <= rest[0][1]:
        return rest[1][1], 0.0, unit
    return *_line(*rest), unit


def _line(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return start and slope through two points; one that falls is noise, which could hide a rise by as much."""
    slope = min(abs(second[1] - first[1]) / max(second[0] - first[0], 1e-9), second[1] / max(second[0], 1e-9))
    return second[1] - slope * second[0], slope


def _machine() -> str:
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{platform.machine()}, {cores} cores, load {load:.1f} when it ended"


def _gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None
