"""How fast does the store feed training? Clouds per CPU second, against opening the file anew for every cloud.

    python -m benchmarks.data_engine [OUTPUT] [--objects 4096]

A store of random clouds of 2048 points is written to a temporary folder and read once, so that all reads come from the
page cache. Times are CPU seconds of this process, which count the copies out of the page cache; the least of the
repeats counts. OUTPUT becomes a folder with ``data_engine.json`` and ``data_engine.md``.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import h5py
import numpy as np
import torch

from benchmarks.operators import describe_machine
from pointloom.data.objects import ObjectLoader, Sampling
from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.shards import SHARD_SIZE, ObjectStore, write_store

NUM_POINTS = 2048
BATCH_SIZE = 128


@dataclass(frozen=True)
class Case:
    """One way to read: ``run`` returns how many clouds it has read."""

    name: str
    run: Callable[[], int]
    target: int | None = None


@dataclass(frozen=True)
class Row:
    """Clouds per CPU second: at best, and in the slowest repeat; ratio of the best to the baseline's best."""

    name: str
    clouds_per_s: float
    lowest: float
    ratio: float
    target: int | None


def write_clouds(folder: Path, num_objects: int) -> ObjectStore:
    """Write a store as stage ``prepare`` does; what the points are does not matter here."""
    rng = np.random.default_rng(0)

    def objects() -> Iterator[tuple[ObjectRecord, ObjectPoints]]:
        for i in range(num_objects):
            coord = rng.uniform(-0.577, 0.577, (NUM_POINTS, 3)).astype(np.float32)
            record = ObjectRecord(
                uid=f"{i:06d}", path=f"{i:06d}.npy", name=f"cloud {i}", category="cloud", group=f"{i}", split="train",
                up_axis="z", transform=tuple(np.eye(4).ravel()), sha256="", num_faces=0,
            )  # fmt: skip
            color = np.full((NUM_POINTS, 3), 128, dtype=np.uint8)
            yield record, ObjectPoints(coord=coord, normal=coord.astype(np.float16), color=color)

    write_store(folder, objects(), num_points=NUM_POINTS, source="folder", settings={})
    return ObjectStore(folder)


def cases(store: ObjectStore, reads: int) -> list[Case]:
    """List the ways to read; the first one is the baseline."""
    order = np.random.default_rng(1).permutation(len(store))
    sampling = Sampling(num_points=1024, pool=NUM_POINTS, scale=(2 / 3, 1.5), shift=0.2, rotate_degrees=0.0)
    loader = ObjectLoader(store, np.arange(len(store)), sampling=sampling, batch_size=BATCH_SIZE, seed=0)

    def opened_anew() -> int:
        for i in order[:reads]:
            with h5py.File(store.path / "points" / f"{i // SHARD_SIZE:05d}.h5") as file:
                file["coord"][i % SHARD_SIZE]
        return len(order[:reads])

    def one_by_one() -> int:
        for i in order[:reads]:
            store.coords(np.array([i]))
        return len(order[:reads])

    def in_batches(rows: np.ndarray) -> int:
        for start in range(0, len(rows), BATCH_SIZE):
            store.coords(rows[start : start + BATCH_SIZE])
        return len(rows)

    def batches_for_training() -> int:
        return sum(len(batch.coord) for batch in loader.batches(epoch=0))

    return [
        Case("file opened anew for every cloud", opened_anew),
        Case("store, one cloud at a time, shuffled", one_by_one, 20_000),
        Case(f"store, batches of {BATCH_SIZE}, shuffled", lambda: in_batches(order), 100_000),
        Case(f"store, batches of {BATCH_SIZE}, in order", lambda: in_batches(np.sort(order))),
        Case(f"loader, batches of {BATCH_SIZE}: draw 1024 points, normalise, augment", batches_for_training),
    ]


def measure(chosen: list[Case], repeats: int) -> list[Row]:
    """Run all ways in turn, after once to warm up."""
    speeds: list[list[float]] = [[] for _ in chosen]
    for repeat in range(1 + repeats):
        for speed, case in zip(speeds, chosen, strict=True):
            start = time.process_time()
            count = case.run()
            if repeat:
                speed.append(count / (time.process_time() - start))
    baseline = max(speeds[0])
    return [
        Row(case.name, max(speed), min(speed), max(speed) / baseline, case.target)
        for case, speed in zip(chosen, speeds, strict=True)
    ]


def as_markdown(rows: list[Row]) -> str:
    lines = ["| how | clouds/s | slowest repeat | ratio | target, clouds/s |", "|---|---|---|---|---|"]
    for row in rows:
        target = f"{row.target:,}" if row.target else ""
        lines.append(f"| {row.name} | {row.clouds_per_s:,.0f} | {row.lowest:,.0f} | **{row.ratio:.1f}** | {target} |")
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--objects", default=4096, help="Clouds in the store.")
@click.option("--repeats", default=5, help="How often everything is read; the best counts.")
def main(output: Path | None, objects: int, repeats: int) -> None:
    """Print clouds per CPU second for every way to read."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(cases(write_clouds(Path(folder) / "store", objects), reads=2000), repeats)
    machine = describe_machine()
    click.echo(
        as_markdown(rows) + f"\n{objects} clouds of {NUM_POINTS} points, one thread, best of {repeats}, {machine}"
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "objects": objects, "repeats": repeats, "rows": [asdict(row) for row in rows]}
        (output / "data_engine.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "data_engine.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
