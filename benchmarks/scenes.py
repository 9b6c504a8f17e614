"""How do time and memory grow with the size of a scene? Networks for points and their operations, 25k to 400k points.

    python -m benchmarks.scenes [OUTPUT] [--points 25000,100000,400000] [--only NAME] [--threads 2]

A synthetic room surface is thinned to so many points. Every measurement is a process of its own: once to warm up at a
small size, then timed. Times are CPU seconds of the process on one thread, wall seconds on several; peak memory is the
largest resident size less what the process held before. The exponent is the slope of log time over log points
(1 = linear, 2 = quadratic); the target is at most 1.15. OUTPUT becomes a folder with ``scenes.json`` and ``scenes.md``.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.operators import describe_machine, room
from benchmarks.scaling import exponent
from pointloom import ops
from pointloom.data.scene_transforms import grid_sample, voxel_keys
from pointloom.models.point_transformer import point_transformer, point_transformer_tiny
from pointloom.models.stratified_transformer import stratified_transformer
from pointloom.structures import SceneBatch
from pointloom.train.allocator import keep_freed_memory

TARGET = 1.15
WARM_UP = 2_000
POINTS_AT_4_CM = 100_000
"""About as many voxels of 4 cm as the room of 6 x 5 x 3 metres has on its surfaces."""


@dataclass(frozen=True)
class Row:
    """One operation at one size."""

    name: str
    points: int
    seconds: float
    peak_gib: float


def batch_of(num_points: int) -> SceneBatch:
    """Return a room with its points in the order in which thinning leaves them, voxel after voxel."""
    coord = room(num_points, 0)[0]
    coord = coord[torch.from_numpy(np.argsort(voxel_keys(coord.numpy(), 0.05)))].contiguous()
    none = torch.full((num_points,), -1)
    return SceneBatch(
        coord=coord, color=torch.rand(num_points, 3), normal=torch.zeros(num_points, 3),
        offset=torch.tensor([num_points]), segment=none, instance=none, row=torch.tensor([0]),
    )  # fmt: skip


def voxels(batch: SceneBatch) -> None:
    grid_sample(batch.coord.numpy(), 0.05, np.random.default_rng(0))


def neighbors(batch: SceneBatch) -> None:
    ops.knn_ragged(batch.coord, batch.offset, batch.coord, batch.offset, 16)


def farthest(batch: SceneBatch) -> None:
    ops.farthest_point_sampling_ragged(batch.coord, batch.offset, batch.offset // 4)


def _train(model: torch.nn.Module) -> Callable[[SceneBatch], None]:
    def step(batch: SceneBatch) -> None:
        torch.stack([level.feature.square().mean() for level in model(batch)]).sum().backward()

    return step


def _at_one_density(step: Callable[[SceneBatch], None]) -> Callable[[SceneBatch], None]:
    """Make the room larger with the number of its points: about one in every 4 cm, whatever their number."""

    def scaled(batch: SceneBatch) -> None:
        factor = (len(batch.coord) / POINTS_AT_4_CM) ** 0.5
        step(replace(batch, coord=batch.coord * factor))

    return scaled


OPERATIONS: dict[str, Callable[[], Callable[[SceneBatch], None]]] = {
    "voxels of 5 cm": lambda: voxels,
    "16 neighbours": lambda: neighbors,
    "farthest points, a quarter": lambda: farthest,
    "point_transformer, forward + backward": lambda: _train(point_transformer()),
    "point_transformer_tiny, forward + backward": lambda: _train(point_transformer_tiny()),
    "stratified_transformer, forward + backward": lambda: _at_one_density(_train(stratified_transformer())),
}


def measure(name: str, num_points: int, threads: int) -> Row:
    """Time one operation at one size; to be called in a fresh process."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    keep_freed_memory()
    torch.manual_seed(0)
    run = OPERATIONS[name]()
    run(batch_of(WARM_UP))
    batch = batch_of(num_points)
    before = _resident_gib()
    start = clock()
    run(batch)
    return Row(name, num_points, clock() - start, _resident_gib() - before)


def _resident_gib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def as_markdown(rows: list[Row]) -> str:
    sizes = sorted({row.points for row in rows})
    lines = [
        "| operation | " + " | ".join(f"{size:,} points" for size in sizes) + " | exponent of time | of memory |",
        "|---|" + "---|" * (len(sizes) + 2),
    ]
    for name in dict.fromkeys(row.name for row in rows):
        own = sorted((row for row in rows if row.name == name), key=lambda row: row.points)
        cells = [f"{row.seconds:.2f} s, {row.peak_gib:.2f} GiB" for row in own]
        time_slope = exponent([row.points for row in own], [row.seconds for row in own])
        memory = [max(row.peak_gib, 1e-3) for row in own]
        memory_slope = exponent([row.points for row in own], memory)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | **{time_slope:.2f}** | {memory_slope:.2f} |")
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--points", default="25000,50000,100000,200000,400000", help="Sizes, separated by commas.")
@click.option("--only", default="", help="Only operations whose name contains this.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="With more than one, wall seconds are printed.")
def main(output: Path | None, points: str, only: str, threads: int) -> None:
    """Print seconds, peak memory and exponents as a Markdown table."""
    machine = describe_machine()
    sizes = [int(size) for size in points.split(",")]
    rows = []
    for name in [name for name in OPERATIONS if only in name]:
        for size in sizes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(measure, (name, size, threads)))
    table = as_markdown(rows)
    click.echo(table + f"\nthreads: {threads}, once per size, target of the exponent {TARGET}, {machine}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "rows": [asdict(row) for row in rows]}
        (output / "scenes.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "scenes.md").write_text(table)


if __name__ == "__main__":
    main()
