"""Does `pointloom plan` foresee what the stages take? Predicted against measured, on generated objects.

    python -m benchmarks.plan [OUTPUT] [--pipeline multimodal] [--profile smoke] [--sizes 200,1000,5000] [--steps ...]

The rates come from short runs at two or three sizes (60, 240, 960 objects), the measurements from whole runs of the
same steps, with all their epochs and seeds, at the sizes given. OUTPUT becomes a folder with ``plan.json`` and
``plan.md``. CPU seconds hardly depend on other work on the machine, wall time does: both are shown, with the load
average beside them.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.operators import describe_machine
from pointloom.calibrate import measure, run_step, shortened
from pointloom.plan import estimate, step_name, steps
from pointloom.stages.sections import ENTRY_STAGES
from pointloom.workspace import PIPELINES, PROFILES, template

STEPS = (
    "prepare,render.views,caption.offline,embed.offline,pretrain.mae,align.align,distill.distill,finetune.mae,probe.mae"
)
LIMIT = 0.3


def only(params: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    """Return the sections of a profile with the wanted entries alone."""
    entries = {
        stage: {entry: values for entry, values in params[stage].items() if step_name(stage, entry) in wanted}
        for stage in ENTRY_STAGES
    }
    return params | entries


def rows_of(params: dict[str, Any], wanted: list[str], sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    """Measure rates, predict every step at every size, run it, and compare."""
    stages = {name.partition(".")[0] for name in wanted}
    rates = measure(params, folder, tell=lambda line: click.echo(line, err=True), stages=stages)
    rows = []
    for size in sizes:
        workspace = folder / f"whole-{size}"
        (workspace / "raw").mkdir(parents=True)
        predicted = {each.name: each for each in estimate(params, rates, objects=size)}
        for stage, entry, values in steps(params):
            if stage not in stages:
                continue
            name, load = step_name(stage, entry), os.getloadavg()[0]
            whole = shortened(stage, values, objects=size) if stage == "prepare" else values
            found = run_step(stage, entry, whole, params, workspace)
            if isinstance(found, str):
                raise click.ClickException(f"{name}: {found}")
            plan = predicted[name]
            rows.append(
                {"name": name, "objects": size, "load": round(load, 1)}
                | {"wall_s": found["wall_s"], "predicted_wall_s": plan.wall_s}
                | {"cpu_s": found["cpu_s"], "predicted_cpu_s": plan.cpu_s}
                | {"bytes": found["bytes"], "predicted_bytes": plan.size}
            )
            click.echo(as_line(rows[-1]), err=True)
    return rows


def as_line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [f"{row['name']}", f"{row['objects']:,}"]
    for key, digits in (("wall_s", 1), ("cpu_s", 1), ("bytes", 0)):
        measured, predicted = row[key], row[f"predicted_{key}"]
        scale = 1e6 if key == "bytes" else 1
        error = predicted / measured - 1
        cells.append(f"{measured / scale:,.{digits or 1}f} / {predicted / scale:,.{digits or 1}f} ({error:+.0%})")
    return f"| {' | '.join(cells)} | {row['load']} |"


@click.command()
@click.argument("output", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/bench"))
@click.option("--pipeline", type=click.Choice(PIPELINES), default="multimodal", show_default=True)
@click.option("--profile", type=click.Choice(PROFILES), default="smoke", show_default=True)
@click.option("--sizes", default="200,1000,5000", show_default=True, help="Numbers of objects.")
@click.option("--steps", "names", default=STEPS, show_default=True, help="Each needs what the ones before it make.")
def main(output: Path, pipeline: str, profile: str, sizes: str, names: str) -> None:
    """Compare, and write the table to OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    wanted = names.split(",")
    params = only(yaml.safe_load(template(f"profiles/{pipeline}/{profile}.yaml")), wanted)
    with tempfile.TemporaryDirectory(prefix="pointloom-plan-") as folder:
        rows = rows_of(params, wanted, [int(size) for size in sizes.split(",")], Path(folder))
    head = "| step | objects | wall s, measured / predicted | CPU s | MB | load |\n|---|---|---|---|---|---|\n"
    (output / "plan.md").write_text(head + "".join(f"{as_line(row)}\n" for row in rows))
    (output / "plan.json").write_text(json.dumps(describe_machine() | {"rows": rows}, indent=2))
    missed = [row for row in rows if abs(row["predicted_cpu_s"] / row["cpu_s"] - 1) > LIMIT]
    click.echo((output / "plan.md").read_text())
    click.echo(f"{len(rows) - len(missed)} of {len(rows)} predictions of CPU time are within {LIMIT:.0%}")


if __name__ == "__main__":
    main()
