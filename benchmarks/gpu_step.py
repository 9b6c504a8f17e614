"""How fast is a step of pre-training on a CUDA device, where does its time go, and how far is that from the floor?

    python -m benchmarks.gpu_step [OUTPUT] [--batch-size 128] [--steps 20] [--card h200]

For each model and variant: clouds per second of wall time over many steps without a synchronisation in between, the
phases of a step from events on the device, kernel launches and host synchronisations of one step from torch's
profiler, how launches grow with the batch, achieved FLOP/s by the multiplications that the model needs, and the share
of the floor of the card. Clouds lie on the device; loading them is ``benchmarks.data_engine``. OUTPUT becomes a folder
with ``gpu_step.json`` and ``gpu_step.md``.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.operators import surfaces
from benchmarks.step import MODELS
from pointloom.models.reference import use_reference_path
from pointloom.ops.backend import ENVIRONMENT_VARIABLE
from pointloom.structures import PointBatch
from pointloom.train.optim import build_optimizer

DENSE_BF16_TFLOPS = {"h200": 790.0, "h100": 790.0, "a100": 280.0}
"""Matrix products in bfloat16 that such cards reach in practice, 10^12 operations per second."""

SYNCHRONISES = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx")


@dataclass(frozen=True)
class Variant:
    """How a model is computed."""

    name: str
    backend: str
    reference: bool = False
    visible_only: bool = False
    precision: str = "bf16"


VARIANTS = (
    Variant("reference path, float32", "torch", reference=True, precision="fp32"),
    Variant("float32", "torch", precision="fp32"),
    Variant("bf16", "torch"),
    Variant("bf16, Triton kernels", "triton"),
    Variant("bf16, Triton kernels, visible only", "triton", visible_only=True),
)


@dataclass(frozen=True)
class Row:
    """One variant of one model; times in milliseconds per step, ``ratio`` against the reference path."""

    name: str
    clouds_per_s: float
    forward_ms: float
    backward_ms: float
    update_ms: float
    launches: int
    launches_at_half_batch: int
    synchronisations: int
    tflop: float
    tflops: float
    share_of_floor: float
    first_loss: float
    peak_gib: float
    ratio: float = 1.0


class Step:
    """A model, its optimiser and a batch on the device."""

    def __init__(self, model: str, variant: Variant, batch_size: int) -> None:
        os.environ[ENVIRONMENT_VARIABLE] = variant.backend
        build, num_points = MODELS[model]
        torch.manual_seed(0)
        self.method: nn.Module = build(variant.visible_only).train()
        if variant.reference:
            use_reference_path(self.method)
        self.method.cuda()
        self.optimizer = build_optimizer(self.method, lr=1e-3, weight_decay=0.05, beta2=0.999)
        none = torch.zeros(batch_size, dtype=torch.long)
        batch = PointBatch(coord=surfaces(batch_size, num_points, seed=0), label=none, row=none)
        self.batch = batch.to(torch.device("cuda"))
        self.bf16 = variant.precision == "bf16"
        torch.manual_seed(0)

    def run(self, marks: list[torch.cuda.Event] | None = None) -> torch.Tensor:
        """Take a step; events between its phases are added to ``marks``."""
        _mark(marks)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16):
            loss: torch.Tensor = self.method(self.batch)["loss"]
        _mark(marks)
        loss.backward()
        _mark(marks)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        _mark(marks)
        return loss.detach()


def _mark(marks: list[torch.cuda.Event] | None) -> None:
    if marks is not None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append(event)


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count kernel launches and host synchronisations of a block."""
    found = {"launches": 0, "synchronisations": 0}
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        yield found
    for event in recorded.events():
        found["launches"] += event.name in LAUNCHES
        found["synchronisations"] += event.name in SYNCHRONISES
    found["synchronisations"] -= 1  # the profiler's own, at its end


def measure(model: str, variant: Variant, *, batch_size: int, steps: int, peak_tflops: float) -> Row:
    """Warm up, then measure."""
    torch.cuda.reset_peak_memory_stats()
    step = Step(model, variant, batch_size)
    first = step.run().item()
    for _ in range(4):
        step.run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step.run()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / steps
    marks: list[torch.cuda.Event] = []
    step.run(marks)
    torch.cuda.synchronize()
    forward, backward, update = (a.elapsed_time(b) for a, b in pairwise(marks))
    with counted() as whole:
        step.run()
    with FlopCounterMode(display=False) as flops:
        step.run()
    tflop = flops.get_total_flops() / 1e12
    peak = torch.cuda.max_memory_allocated() / 2**30
    half = Step(model, variant, batch_size // 2)
    half.run()
    with counted() as smaller:
        half.run()
    floor = tflop / peak_tflops
    return Row(
        f"{model}, {variant.name}", batch_size / seconds, forward, backward, update, whole["launches"],
        smaller["launches"], whole["synchronisations"], tflop, tflop / seconds, floor / seconds, first, peak,
    )  # fmt: skip


def as_markdown(rows: list[Row]) -> str:
    lines = [
        "| step | clouds/s | ratio | forward, backward, update, ms | launches (half the batch) | synchronisations | "
        "TFLOP/s | share of the floor | first loss | peak memory, GiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.clouds_per_s:,.0f} | **{row.ratio:.2f}** | {row.forward_ms:.1f}, "
            f"{row.backward_ms:.1f}, {row.update_ms:.2f} | {row.launches:,} ({row.launches_at_half_batch:,}) | "
            f"{row.synchronisations} | {row.tflops:.1f} | {row.share_of_floor:.0%} | {row.first_loss:.6f} | "
            f"{row.peak_gib:.2f} |"
        )
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--batch-size", default=128)
@click.option("--steps", default=20, help="Timed steps per variant.")
@click.option("--only", default="", help="Only models whose name contains this.")
@click.option("--card", type=click.Choice(list(DENSE_BF16_TFLOPS)), default="h200", help="Whose floor to compare with.")
def main(output: Path | None, batch_size: int, steps: int, only: str, card: str) -> None:
    """Print clouds per second, phases, launches, synchronisations and FLOP/s on the CUDA device."""
    if not torch.cuda.is_available():
        raise click.ClickException("no CUDA device")
    rows: list[Row] = []
    for model in [name for name in MODELS if only in name]:
        plain = len(rows)
        for variant in VARIANTS:
            row = measure(model, variant, batch_size=batch_size, steps=steps, peak_tflops=DENSE_BF16_TFLOPS[card])
            base = rows[plain].clouds_per_s if len(rows) > plain else row.clouds_per_s
            rows.append(Row(**(asdict(row) | {"ratio": row.clouds_per_s / base})))
            torch.cuda.empty_cache()
    device = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "batch_size": batch_size}
    click.echo(as_markdown(rows) + f"\n{device}, floor of {card}: {DENSE_BF16_TFLOPS[card]:g} TFLOP/s")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**device, "steps": steps, "card": card, "rows": [asdict(row) for row in rows]}
        (output / "gpu_step.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "gpu_step.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
