"""How fast is the network on voxels? Voxels per second and memory of HUNet, and how both grow with the scene.

Run it with ``python -m benchmarks.sparse [OUTPUT]``; OUTPUT becomes a folder with ``sparse.json`` and ``sparse.md``.
A scene is an empty corner of a room, 4 x 4 x 2.4 m, or a part; at 2 cm the whole has 87,481 voxels, each of which
has about 9 occupied ones in its 3^3 neighbourhood. Times are CPU seconds of one thread, the least of the repeats;
memory is the largest resident set of a process of its own, less that before the first step. Where spconv is installed,
its native algorithm is measured on the same kernel maps. Attention weights are not dropped: torch has no fast CPU
kernel for that.
"""

import importlib.util
import json
import math
import os
import resource
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.operators import describe_machine
from benchmarks.scaling import exponent
from pointloom.models.sparse_unet import hunet_large
from pointloom.ops.sparse_conv import ENVIRONMENT_VARIABLE
from pointloom.structures import SceneBatch
from pointloom.train.allocator import keep_freed_memory

VOXEL = 0.02
SHARES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Row:
    """One size of scene, one backend of the sparse convolutions."""

    backend: str
    voxels: int
    inference_s: float
    inference_voxels_per_s: float
    inference_mb: float
    training_s: float
    training_voxels_per_s: float
    training_mb: float


def corner(share: float) -> SceneBatch:
    """Return the middles of the voxels of a floor and two walls, ``share`` of the room's area."""
    wide, high = round(4 / VOXEL * math.sqrt(share)), round(2.4 / VOXEL * math.sqrt(share))
    a, b = np.meshgrid(np.arange(wide), np.arange(wide), indexing="ij")
    c, d = np.meshgrid(np.arange(wide), np.arange(high), indexing="ij")
    zero = np.zeros_like
    faces = [(a, b, zero(a)), (c, zero(c), d), (zero(c), c, d)]
    places = np.unique(np.concatenate([np.stack(face, axis=-1).reshape(-1, 3) for face in faces]), axis=0)
    rng = np.random.default_rng(0)
    num = len(places)
    return SceneBatch(
        coord=torch.from_numpy(((places + 0.5) * VOXEL).astype(np.float32)),
        color=torch.from_numpy(rng.random((num, 3), dtype=np.float32)),
        normal=torch.zeros(num, 3),
        offset=torch.tensor([num]),
        segment=torch.full((num,), -1),
        instance=torch.full((num,), -1),
        row=torch.zeros(1, dtype=torch.long),
    )


def measure(share: float, *, backend: str, train: bool, repeats: int) -> tuple[int, float, float]:
    """Return voxels, CPU seconds and megabytes of one step."""
    os.environ[ENVIRONMENT_VARIABLE] = backend
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    encoder = hunet_large(voxel_size=VOXEL, drop_path=0.0, attention_dropout=0.0).train(train)
    scenes = corner(share)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spans = []
    for _ in range(repeats + 1):  # the first compiles kernels and fills caches
        start = time.process_time()
        with torch.set_grad_enabled(train):
            levels = encoder(scenes)
            if train:
                torch.stack([level.feature.square().mean() for level in levels]).sum().backward()
                encoder.zero_grad()
        spans.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return len(scenes.coord), min(spans[1:]), (peak - before) / 1024


def as_table(rows: list[Row]) -> str:
    """Write the rows for people."""
    lines = [
        "| backend | voxels | inference, s | voxels/s | memory, MB | training step, s | voxels/s | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.backend} | {row.voxels:,} "
        f"| {row.inference_s:.2f} | {row.inference_voxels_per_s:,.0f} | {row.inference_mb:,.0f} "
        f"| {row.training_s:.2f} | {row.training_voxels_per_s:,.0f} | {row.training_mb:,.0f} |"
        for row in rows
    ]
    for backend in dict.fromkeys(row.backend for row in rows):
        own = [row for row in rows if row.backend == backend]
        sizes = [row.voxels for row in own]
        seen, trained = exponent(sizes, [r.inference_s for r in own]), exponent(sizes, [r.training_s for r in own])
        lines.append(f"\n{backend}: time grows as voxels^{seen:.2f} (inference) and voxels^{trained:.2f} (training).")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path), default="bench")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True)
def main(output: Path, repeats: int) -> None:
    """Measure HUNet on a corner of a room and parts of it."""
    rows = []
    for backend in ("torch", "spconv") if importlib.util.find_spec("spconv") else ("torch",):
        for share in SHARES:
            spans = []
            for train in (False, True):
                values = {"backend": backend, "train": train, "repeats": repeats}
                with get_context("spawn").Pool(1) as pool:  # a process of its own, for its memory
                    spans.append(pool.apply(measure, (share,), values))
            (voxels, seen, seen_mb), (_, trained, trained_mb) = spans
            rows.append(Row(backend, voxels, seen, voxels / seen, seen_mb, trained, voxels / trained, trained_mb))
    output.mkdir(parents=True, exist_ok=True)
    record = {**describe_machine(), "rows": [asdict(row) for row in rows]}
    (output / "sparse.json").write_text(json.dumps(record, indent=2) + "\n")
    (output / "sparse.md").write_text(as_table(rows))
    click.echo(as_table(rows))


if __name__ == "__main__":
    main()
