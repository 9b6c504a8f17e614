"""How fast are the point operations? Ours against plain torch on one core, in one run, with the results compared.

Run it with ``python -m benchmarks.operators [OUTPUT]``; OUTPUT becomes a folder with ``operators.json`` and
``operators.md``. The baselines are what one writes with torch alone: a loop for farthest point sampling, ``cdist`` and
``topk`` for neighbours, a mask and a full sort for the ball query, a full sort and a gather for the interpolation, a
broadcast for Chamfer distance. Both sides keep freed memory and run in turn; times are CPU seconds of this process,
which other work on the machine disturbs less than wall time, and the least of the repeats counts.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from pointloom import ops
from pointloom.train.allocator import keep_freed_memory

SLICE = 4000  # queries of the scene that the baseline answers; its time grows with their number


@dataclass(frozen=True)
class Case:
    """One comparison: ``baseline`` does ``share`` of the work, ``agree`` says how well two results match."""

    name: str
    target: float
    ours: Callable[[], Tensor]
    baseline: Callable[[], Tensor]
    agree: Callable[[Tensor, Tensor], str]
    share: float = 1.0


@dataclass(frozen=True)
class Row:
    """The result of one comparison; milliseconds of CPU time, ratios of single repeats from lowest to highest."""

    name: str
    baseline_ms: float
    ours_ms: float
    ratio: float
    lowest: float
    highest: float
    target: float
    agreement: str


def describe_machine() -> dict[str, object]:
    """Say what the numbers were measured on; the load is that of the last minute."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    kind = f"{facts['model name']}, family {facts.get('cpu family')}, model {facts.get('model')}" if facts else ""
    return {
        "processor": kind or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def surfaces(num_clouds: int, num_points: int, seed: int) -> Tensor:
    """Random points of superquadrics in the unit ball."""
    rng = np.random.default_rng(seed)
    clouds = np.empty((num_clouds, num_points, 3), dtype=np.float32)
    for cloud in clouds:
        bend, size = rng.uniform(0.3, 1.7, 2), rng.uniform(0.4, 1.0, 3)
        up, around = rng.uniform(-np.pi / 2, np.pi / 2, num_points), rng.uniform(-np.pi, np.pi, num_points)
        ring = _power(np.cos(up), bend[0])
        axes = (
            ring * _power(np.cos(around), bend[1]),
            ring * _power(np.sin(around), bend[1]),
            _power(np.sin(up), bend[0]),
        )
        points = np.stack(axes, axis=1) * size
        points -= points.mean(0)
        cloud[:] = points / np.linalg.norm(points, axis=1).max()
    return torch.from_numpy(clouds)


def room(num_points: int, seed: int) -> Tensor:
    """Random points of walls, floor and boxes of a room of 6 x 5 x 3 metres."""
    rng = np.random.default_rng(seed)
    low, size = np.zeros((1, 3)), np.array([[6.0, 5.0, 3.0]])
    boxes = 30
    low = np.concatenate([low, np.concatenate([rng.uniform(0, 4.5, (boxes, 2)), np.zeros((boxes, 1))], axis=1)])
    size = np.concatenate([size, rng.uniform(0.2, 1.2, (boxes, 3))])
    which = np.where(rng.random(num_points) < 0.6, 0, rng.integers(1, boxes + 1, num_points))
    points = rng.random((num_points, 3))
    points[np.arange(num_points), rng.integers(0, 3, num_points)] = rng.integers(0, 2, num_points)
    return torch.from_numpy((low[which] + points * size[which]).astype(np.float32))[None]


def _power(value: np.ndarray, exponent: float) -> np.ndarray:
    return np.sign(value) * np.abs(value) ** exponent


def plain_fps(coord: Tensor, num: int) -> Tensor:
    B, N, _ = coord.shape
    chosen = torch.zeros(B, num, dtype=torch.long)
    distance = torch.full((B, N), 1e10)
    farthest, batch = torch.zeros(B, dtype=torch.long), torch.arange(B)
    for i in range(num):
        chosen[:, i] = farthest
        centre = coord[batch, farthest][:, None]
        distance = torch.minimum(distance, ((coord - centre) ** 2).sum(-1))
        farthest = distance.max(-1).indices
    return chosen


def plain_knn(query: Tensor, coord: Tensor, k: int) -> Tensor:
    return torch.cdist(query, coord).topk(k, dim=-1, largest=False).indices


def plain_ball(query: Tensor, coord: Tensor, radius: float, num: int) -> Tensor:
    index = torch.arange(coord.shape[1]).repeat(*query.shape[:2], 1)
    index[torch.cdist(query, coord) >= radius] = coord.shape[1]
    index = index.sort(dim=-1).values[..., :num]
    return torch.where(index == coord.shape[1], index[..., :1], index)


def plain_interpolation(query: Tensor, centers: Tensor, feature: Tensor) -> Tensor:
    squared = query.square().sum(-1)[:, :, None] + centers.square().sum(-1)[:, None] - 2 * query @ centers.mT
    squared, index = squared.sort(dim=-1)
    weight = 1.0 / (squared[..., :3].clamp(min=0) + 1e-8)  # the expanded form can be negative
    weight = weight / weight.sum(-1, keepdim=True)
    picked = feature[torch.arange(len(feature))[:, None, None], index[..., :3]]
    return (picked * weight[..., None]).sum(2)


def plain_chamfer(first: Tensor, second: Tensor) -> Tensor:
    total = torch.zeros(())
    for a, b in zip(first, second, strict=True):  # all clouds at once would need gigabytes
        squared = (a[:, None] - b[None]).square().sum(-1)
        total += squared.amin(1).mean() + squared.amin(0).mean()
    return total / len(first)


def same_order(ours: Tensor, baseline: Tensor) -> str:
    return f"{(ours == baseline).double().mean():.4%} of indices"


def same_sets(ours: Tensor, baseline: Tensor) -> str:
    ours = ours[:, : baseline.shape[1]]
    found = (ours[..., None] == baseline[..., None, :]).any(-1)
    return f"{found.double().mean():.4%} of neighbours"


def close(ours: Tensor, baseline: Tensor) -> str:
    difference = (ours - baseline).abs().flatten()
    return f"differ by {difference.max():.1e}, median {difference.median():.1e}"


def cases() -> list[Case]:
    objects, others, dense = surfaces(32, 2048, 0), surfaces(32, 2048, 1), surfaces(32, 8192, 2)
    scene, part = room(100_000, 3), slice(0, SLICE)
    centers, feature = objects[:, :512].contiguous(), torch.randn(32, 512, 192)
    fps, ball = ops.farthest_point_sampling, {"radius": 0.2, "num": 32}
    return [
        Case(
            "farthest points, 32 x 2048 to 512",
            9,
            lambda: fps(objects, 512),
            lambda: plain_fps(objects, 512),
            same_order,
        ),
        Case(
            "farthest points, 32 x 8192 to 2048",
            40,
            lambda: fps(dense, 2048),
            lambda: plain_fps(dense, 2048),
            same_order,
        ),
        Case(
            "farthest points, 100,000 to 4096", 60, lambda: fps(scene, 4096), lambda: plain_fps(scene, 4096), same_order
        ),
        Case(
            "16 neighbours, 32 x 512 in 2048",
            5,
            lambda: ops.knn(centers, objects, 16),
            lambda: plain_knn(centers, objects, 16),
            same_sets,
        ),
        Case(
            "16 neighbours, 100,000 in 100,000",
            100,
            lambda: ops.knn(scene, scene, 16),
            lambda: plain_knn(scene[:, part], scene, 16),
            same_sets,
            SLICE / 100_000,
        ),
        Case(
            "ball of 32, 32 x 512 in 2048",
            10,
            lambda: ops.ball_query(centers, objects, **ball),
            lambda: plain_ball(centers, objects, **ball),
            same_order,
        ),
        Case(
            "interpolation, 32 x 2048 from 512, 192 channels",
            40,
            lambda: ops.interpolate_features(objects, centers, feature),
            lambda: plain_interpolation(objects, centers, feature),
            close,
        ),
        Case(
            "Chamfer L2, 32 x 2048 and 2048",
            15,
            lambda: ops.chamfer_distance(objects, others),
            lambda: plain_chamfer(objects, others),
            close,
        ),
    ]


def measure(case: Case, repeats: int) -> Row:
    """Run both sides in turn, after once to warm up and to compare the results."""
    agreement = case.agree(case.ours(), case.baseline())
    baseline, ours = [], []
    for _ in range(repeats):
        baseline.append(_cpu_ms(case.baseline) / case.share)
        ours.append(_cpu_ms(case.ours))
    ratios = [b / o for b, o in zip(baseline, ours, strict=True)]
    ratio = min(baseline) / min(ours)
    return Row(case.name, min(baseline), min(ours), ratio, min(ratios), max(ratios), case.target, agreement)


def _cpu_ms(function: Callable[[], Tensor]) -> float:
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start)


def as_markdown(rows: list[Row]) -> str:
    lines = [
        "| operation | plain torch, ms | ours, ms | ratio | single repeats | target | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row.lowest:.1f} to {row.highest:.1f}"
        cells = (
            row.name,
            f"{row.baseline_ms:,.0f}",
            f"{row.ours_ms:.1f}",
            f"**{row.ratio:.1f}**",
            spread,
            f"{row.target:g}",
            row.agreement,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--repeats", default=3, help="How often each side runs; the least CPU time counts.")
@click.option("--only", default="", help="Only operations whose name contains this.")
def main(output: Path | None, repeats: int, only: str) -> None:
    """Print CPU milliseconds, ratios and their spread as a Markdown table."""
    torch.set_num_threads(1)
    keep_freed_memory()
    with torch.inference_mode():
        rows = [measure(case, repeats) for case in cases() if only in case.name]
    machine = describe_machine()
    click.echo(as_markdown(rows) + f"\none thread, least of {repeats}, {machine}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "repeats": repeats, "rows": [asdict(row) for row in rows]}
        (output / "operators.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "operators.md").write_text(as_markdown(rows))


if __name__ == "__main__":
    main()
