"""How do costs grow? With points, with the batch, with the number of shapes; and the exponent of each curve.

    python -m benchmarks.scaling [OUTPUT] [--repeats 3]

Every curve doubles one size and keeps everything else. The exponent is the slope of a straight line through the
logarithms of size and CPU time (or memory): 1 is proportional, 2 is quadratic. Times are CPU seconds of this process on
one thread, least of the repeats; a batch's peak memory is measured in a process of its own. OUTPUT becomes a folder
with ``scaling.json`` and ``scaling.md``.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.data_engine import write_clouds
from benchmarks.operators import describe_machine, room, surfaces
from benchmarks.step import VARIANTS, train
from pointloom import ops
from pointloom.data.objects import ObjectLoader, Sampling
from pointloom.train.allocator import keep_freed_memory

POINTS = (4096, 8192, 16384, 32768, 65536)
BATCHES = (4, 8, 16)
SHAPES = (512, 1024, 2048, 4096)
MODEL = "Point-M2AE"
VARIANT = VARIANTS[1]


@dataclass(frozen=True)
class Curve:
    """Values at growing sizes; ``ratio`` is the fitted exponent."""

    name: str
    sizes: list[int]
    values: list[float]
    unit: str
    ratio: float


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def curve(name: str, sizes: Sequence[int], values: Sequence[float], unit: str) -> Curve:
    return Curve(name, list(sizes), list(values), unit, exponent(sizes, values))


def least_ms(call: Callable[[], object], repeats: int) -> float:
    """Return CPU milliseconds, after once to warm up."""
    times = []
    for _ in range(1 + repeats):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return min(times[1:])


def over_points(repeats: int) -> list[Curve]:
    """One cloud of a room with more and more points."""
    rooms = {n: room(n, seed=0) for n in POINTS}
    calls: dict[str, Callable[[int], object]] = {
        "farthest points, n to n / 4": lambda n: ops.farthest_point_sampling(rooms[n], n // 4),
        "farthest points, n to 1024": lambda n: ops.farthest_point_sampling(rooms[n], 1024),
        "16 neighbours of all n points": lambda n: ops.knn(rooms[n], rooms[n], 16),
        "ball of 32 around n / 4 points, radius 0.2 m": lambda n: ops.ball_query(
            rooms[n][:, : n // 4], rooms[n], radius=0.2, num=32
        ),
        "Chamfer L2, n and n points": lambda n: ops.chamfer_distance(rooms[n], rooms[n].flip(1) + 0.01, norm=2),
    }
    return [
        curve(name, POINTS, [least_ms(partial(call, n), repeats) for n in POINTS], "CPU ms")
        for name, call in calls.items()
    ]


def over_batch(steps: int) -> list[Curve]:
    """The step of Point-M2AE with more and more clouds, each batch in a process of its own."""
    runs = []
    for size in BATCHES:
        with get_context("spawn").Pool(1) as pool:
            runs.append(pool.apply(train, (MODEL, VARIANT, size, steps)))
    return [
        curve(f"step of {MODEL}, {VARIANT.name}, against the batch", BATCHES, [min(r.steps_s) for r in runs], "CPU s"),
        curve(f"its peak memory, {VARIANT.name}, against the batch", BATCHES, [r.peak_gib for r in runs], "GiB"),
    ]


def over_shapes(repeats: int) -> list[Curve]:
    """An epoch of the loader and opening a store, with more and more shapes."""
    sampling = Sampling(num_points=1024, pool=2048, scale=(2 / 3, 1.5), shift=0.2, rotate_degrees=0.0)
    epochs, samples = [], []
    for count in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            store = write_clouds(Path(folder) / "store", count)
            loader = ObjectLoader(store, np.arange(count), sampling=sampling, batch_size=128, seed=0)
            epochs.append(least_ms(partial(_epoch, loader), repeats))
        clouds = surfaces(count // 16, 2048, seed=0)
        samples.append(least_ms(partial(ops.farthest_point_sampling, clouds, 512), repeats))
    return [
        curve("epoch of the loader, 1024 of 2048 points", SHAPES, epochs, "CPU ms"),
        curve("farthest points, 2048 to 512, of clouds", [n // 16 for n in SHAPES], samples, "CPU ms"),
    ]


def _epoch(loader: ObjectLoader) -> int:
    return sum(len(batch.coord) for batch in loader.batches(epoch=0))


def batch_that_fits(memory: Curve, limit_gib: float) -> int:
    """Return the largest batch whose peak memory, on the line through the two largest ones, stays below a limit."""
    (size, value), (larger, more) = list(zip(memory.sizes, memory.values, strict=True))[-2:]
    return int(larger + (limit_gib - more) * (larger - size) / (more - value))


def as_markdown(found: list[Curve]) -> str:
    lines = ["| what | sizes | values | unit | exponent |", "|---|---|---|---|---|"]
    for each in found:
        sizes, values = ", ".join(f"{v:,}" for v in each.sizes), ", ".join(f"{v:,.4g}" for v in each.values)
        lines.append(f"| {each.name} | {sizes} | {values} | {each.unit} | **{each.ratio:.2f}** |")
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--repeats", default=2, help="Timed repeats; the least CPU time counts.")
def main(output: Path | None, repeats: int) -> None:
    """Print the curves and their exponents."""
    torch.set_num_threads(1)
    keep_freed_memory()
    found = [*over_points(repeats), *over_batch(steps=1), *over_shapes(repeats)]
    text = as_markdown(found)
    memory = next(each for each in found if each.unit == "GiB")
    text += f"\n{MODEL}, {VARIANT.name}: a batch of {batch_that_fits(memory, 16.0)} fits into 16 GiB.\n"
    machine = describe_machine()
    click.echo(text + f"\none thread, {machine}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "rows": [asdict(each) for each in found]}
        (output / "scaling.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "scaling.md").write_text(text)


if __name__ == "__main__":
    main()
