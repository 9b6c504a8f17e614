"""``pointloom lineage``: what made this, and what it made."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("subject", metavar="ID")
@click.option(
    "--in", "folder", type=click.Path(path_type=Path), default=".", help="Workspace, or artefacts of a rehearsal."
)
@click.option("--json", "as_data", is_flag=True, help="Print JSON instead of a tree.")
def lineage(subject: str, folder: Path, as_data: bool) -> None:
    """Say what made ID and what it made: pointloom lineage models/mae.

    ID is the path of an output or of a weights file, a digest or checksum, a git revision, or a run of MLflow or
    Kubeflow Pipelines; six characters of it are enough where they are unique. Looks at the files of the workspace and
    at its MLflow.
    """
    from pointloom.lineage import as_text, find_subject, read_history, trace

    history = read_history(folder)
    found = trace(history, find_subject(history, subject, folder))
    click.echo(json.dumps(found, indent=2) if as_data else as_text(found))
