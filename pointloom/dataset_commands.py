"""``pointloom datasets``: what published data sets there are, what is here, and how to get them."""

from pathlib import Path

import click


@click.group(invoke_without_command=True)
@click.option(
    "--in", "folder", type=click.Path(path_type=Path), default=".", show_default=True, help="Folder to look into."
)
@click.pass_context
def datasets(context: click.Context, folder: Path) -> None:
    """List the published data sets: use, size, licence, source, and what of them is here.

    Looks into the folder and its sub-folders. To use one: pointloom prepare with prepare.source set to its name.
    """
    if context.invoked_subcommand is not None:
        return
    from pointloom.datasets.local import describe

    click.echo("\n\n".join(describe(folder)))


@datasets.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--variant", help="Which layout, where there are several.")
@click.option("--keep-archive", is_flag=True, help="Keep the archive beside the unpacked folder.")
def get(name: str, folder: Path, variant: str | None, keep_archive: bool) -> None:
    """Download the data set NAME into FOLDER and unpack it there.

    Goes on where an interrupted download stopped. Only data sets that anyone may download; for the others the message
    says where to ask.
    """
    from pointloom.datasets.local import get_dataset

    click.echo(f"Ready: {get_dataset(name, folder, variant=variant, keep_archive=keep_archive)}")
