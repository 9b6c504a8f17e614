"""``pointloom ablate``: run an ablation table of a paper and print it."""

from pathlib import Path
from typing import Any

import click

PROFILE_HELP = (
    "Objects, points and epochs: smoke = to see that everything works; demo = real training on two CPU cores."
)


@click.command()
@click.argument("table", required=False)
@click.option("--list", "listed", is_flag=True, help="List the tables.")
@click.option("--profile", type=click.Choice(["smoke", "demo"]), default="smoke", show_default=True, help=PROFILE_HELP)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How often to pre-train every row.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of meshes or clouds; without it, generated shapes."
)
@click.option("--train-list", type=click.Path(path_type=Path), help="File of relative paths: the training split.")
@click.option("--test-list", type=click.Path(path_type=Path), help="File of relative paths: the test split.")
@click.option("-w", "--workspace", "folder", type=click.Path(path_type=Path), help="Default: runs/TABLE-PROFILE.")
@click.option("--dry-run", is_flag=True, help="Print the parameters, make nothing.")
def ablate(table: str | None, listed: bool, dry_run: bool, **choices: Any) -> None:
    """Run an ablation TABLE of a paper and print it: pointloom ablate m2ae-table8 --profile smoke.

    Makes a workspace with one pre-training per row and seed, runs it, and shows what every row measured beside what
    the paper says. The same command continues after an interruption.
    """
    from pointloom.ablate import AblationChoices, ablation_text, list_tables, run_ablation

    if listed or table is None:
        click.echo(list_tables())
    elif dry_run:
        click.echo(ablation_text(AblationChoices(table, **choices)), nl=False)
    else:
        click.echo(run_ablation(AblationChoices(table, **choices)))
