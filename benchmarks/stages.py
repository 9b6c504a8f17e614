"""What does every stage cost, and which one is the bottleneck? One run of a pipeline's smoke profile.

    python -m benchmarks.stages [OUTPUT] [--pipeline multimodal] [--profile smoke]

The workspace is made in a temporary folder and run as a user runs it; wall seconds, CPU seconds and memory are what
every stage measures of itself, child processes included. OUTPUT becomes a folder with ``stages.json`` and
``stages.md``.
"""

import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.operators import describe_machine
from pointloom.report.lineage import bottleneck
from pointloom.run import run_workspace
from pointloom.stages import STAGES
from pointloom.workspace import PIPELINES, PROFILES, WorkspaceChoices, init_workspace


@dataclass(frozen=True)
class Row:
    """Cost of a stage; ``ratio`` is its share of all CPU seconds, ``waiting`` percent of its training's time."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    waiting: float | None
    ratio: float


def measure(pipeline: str, profile: str) -> list[Row]:
    """Run a pipeline on generated shapes and return the stages in its order."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "ws"
        init_workspace(WorkspaceChoices(folder=workspace, pipeline=pipeline, profile=profile))
        run_workspace(workspace)
        return rows(read_costs(workspace / "reports"))


def read_costs(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return name and content of every metrics file, stage by stage."""
    found = []
    for stage in STAGES:
        alone = folder / f"{stage}.json"
        for file in [alone] if alone.is_file() else sorted((folder / stage).glob("*.json")):
            name = stage if file == alone else f"{stage} {file.stem}"
            found.append((name, json.loads(file.read_text(encoding="utf-8"))))
    return found


def rows(costs: list[tuple[str, dict[str, Any]]]) -> list[Row]:
    """Put the share of every stage beside its cost."""
    total = sum(content["run"]["cpu_s"] for _, content in costs)
    return [
        Row(
            name,
            content["run"]["wall_s"],
            content["run"]["cpu_s"],
            content["run"]["peak_memory_mb"],
            content["metrics"].get("percent_waiting_for_data"),
            content["run"]["cpu_s"] / total,
        )
        for name, content in costs
    ]


def as_markdown(found: list[Row]) -> str:
    lines = [
        "| stage | wall s | CPU s | cores busy | peak memory, MB | loader-bound | share of CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        waiting = "" if row.waiting is None else f"{row.waiting:.1f} %"
        lines.append(
            f"| {row.name} | {row.wall_s:.1f} | {row.cpu_s:.1f} | {row.cpu_s / row.wall_s:.1f} | {row.peak_mb:.0f} | "
            f"{waiting} | **{row.ratio:.0%}** |"
        )
    wall, cpu = sum(row.wall_s for row in found), sum(row.cpu_s for row in found)
    lines.append(f"| all | {wall:.1f} | {cpu:.1f} | {cpu / wall:.1f} | | | |")
    facts = [asdict(row) | {"stage": row.name, "name": ""} for row in found]
    return "\n".join([*lines, "", f"Bottleneck: {bottleneck(facts)}"]) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("output", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--pipeline", type=click.Choice(PIPELINES), default="multimodal")
@click.option("--profile", type=click.Choice(PROFILES), default="smoke")
def main(output: Path | None, pipeline: str, profile: str) -> None:
    """Print what every stage costs."""
    logging.disable(logging.INFO)
    found = measure(pipeline, profile)
    machine = describe_machine()
    click.echo(as_markdown(found) + f"\npipeline {pipeline}, profile {profile}, generated shapes, {machine}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        record = {**machine, "pipeline": pipeline, "profile": profile, "rows": [asdict(row) for row in found]}
        (output / "stages.json").write_text(json.dumps(record, indent=2) + "\n")
        (output / "stages.md").write_text(as_markdown(found))


if __name__ == "__main__":
    main()
