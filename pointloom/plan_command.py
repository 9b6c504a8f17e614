"""``pointloom plan``: what a run will take, before it is started."""

import tempfile
from pathlib import Path

import click

from pointloom.workspace import PIPELINES, PROFILES


@click.command()
@click.option("--objects", type=click.IntRange(1), required=True, help="Number of shapes to be prepared.")
@click.option("--pipeline", type=click.Choice(PIPELINES), default="multimodal", show_default=True)
@click.option("--profile", type=click.Choice(PROFILES), default="paper", show_default=True)
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Machines, with one GPU each.")
@click.option(
    "--measure", "wanted", is_flag=True, help="First run all steps on a few generated objects here, and keep the rates."
)
@click.option(
    "--rates", "file", type=click.Path(path_type=Path), help="File of rates; default: rates-PIPELINE-PROFILE.json."
)
@click.option("--json", "as_data", is_flag=True, help="Print JSON instead of a table.")
def plan(
    *, objects: int, pipeline: str, profile: str, gpus: int, wanted: bool, file: Path | None, as_data: bool
) -> None:
    """Estimate storage, time and GPU-hours of a run: pointloom plan --objects 800000 --profile paper --gpus 8.

    The numbers rest on rates: measured on a machine like those that will do the work (--measure), or written by hand.
    What has no rate is named and not guessed.
    """
    from pointloom.calibrate import measure
    from pointloom.plan import as_json, as_table, estimate, read_rates
    from pointloom.stages.sections import check_params
    from pointloom.workspace import template

    path = file or Path(f"rates-{pipeline}-{profile}.json")
    with tempfile.TemporaryDirectory(prefix="pointloom-plan-") as name:
        folder = Path(name)
        (folder / "params.yaml").write_text(template(f"profiles/{pipeline}/{profile}.yaml"), encoding="utf-8")
        params = check_params(folder)
        if wanted:
            measured = measure(params, folder, tell=lambda line: click.echo(line, err=True))
            path.write_text(measured.model_dump_json(indent=1) + "\n", encoding="utf-8")
            click.echo(f"Rates: {path}", err=True)
    rates = read_rates(path)
    text = (as_json if as_data else as_table)(estimate(params, rates, objects=objects), rates, machines=gpus)
    click.echo(text)
