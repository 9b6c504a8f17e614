"""``pointloom plan``: storage, time and GPU-hours of a run before it is paid for, from measurements on a few objects.

Every stage is a sum: a start, and so much per unit of work. Units are objects for stages that go through them once, and
samples (objects times epochs) for stages that train; these also look at every object once per training, to test.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.sections import ENTRY_STAGES
from pointloom.stages.signature import read_signature

TRAINED_ON_SEVERAL = ("pretrain", "align", "distill")
"""Stages that train one model on several GPUs; the trainings of other stages are several models, one GPU each."""

JOURNALED = ("prepare", "render")
"""Stages that keep finished objects beside the output until it is complete: twice the space while they run."""


class Rate(BaseModel):
    """What a stage takes.

    Attributes:
        start_s: Seconds before the first unit.
        unit_s: Seconds of wall time per unit.
        start_cpu_s: CPU seconds before the first unit, of all processes.
        unit_cpu_s: CPU seconds per unit.
        object_s: Of stages that train, seconds per object and training, whatever the number of epochs.
        object_cpu_s: CPU seconds likewise.
        start_bytes: Size of the output without units.
        unit_bytes: Bytes of the output per unit.
        gpu: Whether it was measured on a GPU.
    """

    model_config = ConfigDict(extra="forbid")

    start_s: float = Field(default=0.0, ge=0)
    unit_s: float = Field(ge=0)
    start_cpu_s: float = Field(default=0.0, ge=0)
    unit_cpu_s: float = Field(default=0.0, ge=0)
    object_s: float = Field(default=0.0, ge=0)
    object_cpu_s: float = Field(default=0.0, ge=0)
    start_bytes: float = Field(default=0.0, ge=0)
    unit_bytes: float = Field(default=0.0, ge=0)
    gpu: bool = False


class Rates(BaseModel):
    """A file of rates.

    Attributes:
        machine: Where they were measured, in words.
        rates: By step, ``render.views`` or ``prepare``.
        missing: Why steps could not be measured.
    """

    model_config = ConfigDict(extra="forbid")

    machine: str = "as given"
    rates: dict[str, Rate]
    missing: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """What a step of the pipeline will take.

    Attributes:
        stage: Its stage.
        entry: Entry of the section, empty where there is only one.
        units: Units of work.
        wall_s: Seconds on one machine like the measured one; None without a rate.
        cpu_s: CPU seconds.
        size: Bytes of its output.
        gpu: Whether the time is that of a GPU.
    """

    stage: str
    entry: str
    units: float
    wall_s: float | None
    cpu_s: float = 0.0
    size: float = 0.0
    gpu: bool = False

    @property
    def name(self) -> str:
        """Return ``render.views`` or ``prepare``."""
        return step_name(self.stage, self.entry)


def step_name(stage: str, entry: str) -> str:
    """Return the section of a step's parameters."""
    return f"{stage}.{entry}" if entry else stage


def steps(params: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield stage, entry and values of all steps, in the order of the pipeline."""
    for stage in STAGES:
        for entry, values in (params[stage] if stage in ENTRY_STAGES else {"": params[stage]}).items():
            yield stage, entry, values


def units_of(stage: str, values: Mapping[str, Any], *, objects: int, test_fraction: float) -> float:
    """Return the units of work of a step.

    Args:
        stage: Its stage.
        values: Its parameters.
        objects: Number of objects in the store.
        test_fraction: Part of them that nothing learns from.
    """
    training = objects * (1 - test_fraction)
    seeds = len(values.get("seeds", [0]))
    if stage == "finetune" and "label_epochs" in values:
        return seeds * training * sum(float(share) * epochs for share, epochs in values["label_epochs"].items())
    if "epochs" in values:
        return seeds * training * float(values["epochs"])
    return float(objects * seeds)


def trainings_of(values: Mapping[str, Any]) -> int:
    """Return how many models a step trains one after the other; 0 if it trains none."""
    if "label_epochs" in values:
        return len(values.get("seeds", [0])) * len(values["label_epochs"])
    return len(values.get("seeds", [0])) if "epochs" in values else 0


def estimate(params: Mapping[str, Any], rates: Rates, *, objects: int) -> list[Estimate]:
    """Estimate all steps.

    Args:
        params: All sections of a profile, checked.
        rates: What was measured.
        objects: Number of objects to prepare.
    """
    found = []
    for stage, entry, values in steps(params):
        units = units_of(stage, values, objects=objects, test_fraction=params["prepare"]["test_fraction"])
        rate = rates.rates.get(step_name(stage, entry))
        if rate is None:
            found.append(Estimate(stage, entry, units, None))
            continue
        size = rate.start_bytes + rate.unit_bytes * objects
        seen = objects * trainings_of(values)
        wall = rate.start_s + rate.object_s * seen + rate.unit_s * units
        cpu = rate.start_cpu_s + rate.object_cpu_s * seen + rate.unit_cpu_s * units
        found.append(Estimate(stage, entry, units, wall, cpu, size, rate.gpu))
    return found


def stage_hours(estimates: list[Estimate], machines: int) -> dict[str, float]:
    """Return hours per stage on so many machines with a GPU each.

    Stages that can be split, and trainings of one model, are shared by all machines without loss; other steps of a
    stage stand side by side, one machine each.
    """
    found: dict[str, float] = {}
    for stage in dict.fromkeys(each.stage for each in estimates):
        walls = [each.wall_s for each in estimates if each.stage == stage and each.wall_s is not None]
        if not walls:
            continue
        shared = stage in TRAINED_ON_SEVERAL or read_signature(stage, STAGES[stage]).splits
        seconds = sum(walls) / machines
        found[stage] = (seconds if shared else max(seconds, *walls)) / 3600
    return found


def read_rates(path: Path) -> Rates:
    """Read a file of rates.

    Raises:
        ParamsError: It is missing or no such file.
    """
    try:
        return Rates.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; measure this machine with --measure (minutes), or write one by hand: "
            '{"rates": {"prepare": {"unit_s": 0.02, "unit_bytes": 180000}}}'
        ) from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        raise ParamsError("\n".join([f"{path}: no file of rates", *lines])) from None


def as_table(estimates: list[Estimate], rates: Rates, *, machines: int) -> str:
    """Return the estimates for people: a table, the bottleneck, and what the numbers rest on."""
    hours = stage_hours(estimates, machines)
    titles = ("step", "units", "storage", "one machine", "CPU", "GPU")
    rows = [titles, *(_row(each) for each in estimates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    total, size = sum(hours.values()), sum(each.size for each in estimates)
    peak = size + max((each.size for each in estimates if each.stage in JOURNALED), default=0.0)
    lines += [
        "",
        f"Storage: {_bytes(size)}, at most {_bytes(peak)} while it runs; copies of DVC and MLflow not counted.",
    ]
    if hours:
        slowest = max(hours, key=lambda stage: hours[stage])
        share = hours[slowest] / total if total else 0.0
        lines.append(f"Time on {machines} machine(s): {_time(total * 3600)}. Bottleneck: {slowest}, {share:.0%} of it.")
    gpu_s = sum(each.wall_s or 0.0 for each in estimates if each.gpu)
    lines.append(
        f"GPU-hours: {gpu_s / 3600:,.1f}." if gpu_s else "GPU-hours: unknown, because nothing was measured on a GPU."
    )
    lines.append(f"Measured on: {rates.machine}. Each machine is taken to be like it, and sharing to cost nothing.")
    for each in estimates:
        if each.wall_s is None:
            reason = rates.missing.get(each.name, "the file of rates does not have it")
            lines.append(f"Not in these numbers: {each.name} ({reason})")
    return "\n".join(lines)


def as_json(estimates: list[Estimate], rates: Rates, *, machines: int) -> str:
    """Return the same as JSON."""
    hours = stage_hours(estimates, machines)
    content = {
        "machine": rates.machine,
        "machines": machines,
        "steps": [{"name": each.name, **vars(each)} for each in estimates],
        "stage_hours": hours,
        "bottleneck": max(hours, key=lambda stage: hours[stage]) if hours else None,
        "storage_bytes": sum(each.size for each in estimates),
        "gpu_hours": sum(each.wall_s or 0.0 for each in estimates if each.gpu) / 3600,
        "missing": {each.name: rates.missing.get(each.name) for each in estimates if each.wall_s is None},
    }
    return json.dumps(content, indent=2)


def _row(each: Estimate) -> tuple[str, ...]:
    if each.wall_s is None:
        return (each.name, f"{each.units:,.0f}", "?", "?", "?", "?")
    gpu = _time(each.wall_s) if each.gpu else "-"
    return (each.name, f"{each.units:,.0f}", _bytes(each.size), _time(each.wall_s), _time(each.cpu_s), gpu)


def _bytes(number: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1e3:,.0f} kB"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
