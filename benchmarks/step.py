"""How fast is a step of pre-training? Ours against the reference path of the same models on one core, in one run.

    python -m benchmarks.step [OUTPUT] [--batch-size 16] [--steps 3] [--only NAME]

Every variant is a process of its own, which trains for one step to warm up and some more that are timed: the same
clouds, seed, weights, thread and, but for the last, setting of the allocator. Times are CPU seconds of the process,
which other work on the machine disturbs less than wall time; the least of the steps counts. Peak memory is the
process's largest resident size less what it held before the model was built. OUTPUT becomes a folder with ``step.json``
and ``step.md``.
"""

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from torch import nn

from benchmarks.operators import describe_machine, surfaces
from pointloom.methods.m2ae import M2AE
from pointloom.methods.mae import MAE
from pointloom.models.point_m2ae import point_m2ae_base
from pointloom.models.point_mae import point_mae_small
from pointloom.models.reference import use_reference_path
from pointloom.ops.backend import ENVIRONMENT_VARIABLE
from pointloom.structures import PointBatch
from pointloom.train.allocator import keep_freed_memory
from pointloom.train.optim import build_optimizer


@dataclass(frozen=True)
class Variant:
    """How a model is computed."""

    name: str
    reference: bool = False
    visible_only: bool = False
    precision: str = "fp32"
    keep_memory: bool = True


VARIANTS = (
    Variant("reference path", reference=True),
    Variant("float32"),
    Variant("float32, visible only", visible_only=True),
    Variant("bf16", precision="bf16"),
    Variant("bf16, visible only", precision="bf16", visible_only=True),
    Variant("float32, memory given back", keep_memory=False),
)
"""Visible only embeds hidden patches not even for the batch statistics, which is another computation. The last one is
float32 without ``keep_freed_memory``."""

TARGETS = {
    "Point-MAE": {"float32": 2.0, "bf16": 3.5},
    "Point-M2AE": {"float32": 2.5, "float32, visible only": 4.0, "bf16": 6.0},
}


@dataclass(frozen=True)
class Run:
    """One variant of one model: CPU seconds of the timed steps and of their parts, loss of the first step, memory."""

    model: str
    variant: str
    steps_s: list[float]
    forward_s: float
    backward_s: float
    update_s: float
    first_loss: float
    peak_gib: float


def point_mae(visible_only: bool) -> MAE:
    """Build Point-MAE's pre-training model with the values of the paper."""
    encoder = point_mae_small(skip_near_origin=1e-3)
    encoder.embed_visible_only = visible_only
    return MAE(
        encoder, mask_ratio=0.6, mask="random", decoder_depth=4, decoder_heads=6, drop_path=0.1, loss_norm=2,
        small_start=False,
    )  # fmt: skip


def point_m2ae(visible_only: bool) -> M2AE:
    """Build Point-M2AE's pre-training model with the values of the paper and the official masks."""
    encoder = point_m2ae_base(skip_near_origin=1e-3)
    encoder.embed_visible_only = visible_only
    return M2AE(
        encoder, mask_ratio=0.8, multi_scale=True, decoder_stages=2, decoder_depth=1, decoder_heads=6, drop_path=0.1,
        skip=True, points_per_token=16, loss="chamfer", loss_norm=2, small_start=False, compat="official",
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[bool], nn.Module], int]] = {
    "Point-MAE": (point_mae, 1024),
    "Point-M2AE": (point_m2ae, 2048),
}
"""Builder and number of points."""


def train(model: str, variant: Variant, batch_size: int, steps: int) -> Run:
    """Train for ``steps`` after one to warm up; to be called in a fresh process."""
    torch.set_num_threads(1)
    if variant.keep_memory:
        keep_freed_memory()
    if variant.reference:
        os.environ[ENVIRONMENT_VARIABLE] = "torch"
    build, num_points = MODELS[model]
    none = torch.zeros(batch_size, dtype=torch.long)
    batch = PointBatch(coord=surfaces(batch_size, num_points, seed=0), label=none, row=none)
    before = _resident_gib()
    torch.manual_seed(0)
    method = build(variant.visible_only).train()
    if variant.reference:
        use_reference_path(method)
    optimizer = build_optimizer(method, lr=1e-3, weight_decay=0.05, beta2=0.999)
    torch.manual_seed(0)
    losses, marks = [], []
    for _ in range(1 + steps):
        times = [time.process_time()]
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.precision == "bf16"):
            loss = method(batch)["loss"]
        times.append(time.process_time())
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.process_time())
        losses.append(loss.item())
        marks.append(times)
    parts = [min(times[i + 1] - times[i] for times in marks[1:]) for i in range(3)]
    whole = [times[-1] - times[0] for times in marks[1:]]
    return Run(model, variant.name, whole, *parts, losses[0], _resident_gib() - before)


def _resident_gib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare(runs: list[Run]) -> list[dict[str, object]]:
    """Put every run beside the reference path of its model."""
    plain = {run.model: run for run in runs if run.variant == VARIANTS[0].name}
    rows: list[dict[str, object]] = []
    for run in runs:
        base = plain[run.model]
        single = [b / o for b, o in zip(base.steps_s, run.steps_s, strict=True)]
        rows.append(
            {
                "name": f"{run.model}, {run.variant}",
                "ratio": min(base.steps_s) / min(run.steps_s),
                "lowest": min(single),
                "highest": max(single),
                "target": TARGETS[run.model].get(run.variant),
                "memory": run.peak_gib / base.peak_gib,
                **asdict(run),
            }
        )
    return rows


def as_markdown(rows: list[dict[str, object]]) -> str:
    lines = [
        "| step | CPU s | forward, backward, update | ratio | single steps | target | first loss | peak memory, GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = row["target"] or ""
        lines.append(
            "| {name} | {0:.2f} | {forward_s:.2f}, {backward_s:.2f}, {update_s:.3f} | **{ratio:.2f}** | "
            "{lowest:.2f} to {highest:.2f} | {1} | {first_loss:.6f} | {peak_gib:.2f} ({memory:.0%}) |".format(
                min(row["steps_s"]),
                target,
                **{k: v for k, v in row.items() if k != "target"},  # type: ignore[call-overload]
            )
        )
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--batch-size", default=16)
@click.option("--steps", default=3, help="Timed steps per variant; the least CPU time counts.")
@click.option("--only", default="", help="Only models whose name contains this.")
def main(output: Path | None, batch_size: int, steps: int, only: str) -> None:
    """Print CPU seconds per step, ratios to the reference path, first losses and peak memory."""
    machine = describe_machine()
    runs = []
    for model in [name for name in MODELS if only in name]:
        for variant in VARIANTS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs.append(pool.apply(train, (model, variant, batch_size, steps)))
    rows = compare(runs)
    click.echo(as_markdown(rows) + f"\nbatch {batch_size}, one thread, least of {steps} steps, {machine}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "batch_size": batch_size, "steps": steps, "rows": rows}
        (output / "step.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "step.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
