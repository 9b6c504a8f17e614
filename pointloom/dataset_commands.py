"""``pointloom datasets``: what published data sets there are, what is here, and how to get them."""

from pathlib import Path

import click

LAYOUTS = ("votenet", "votenet_sunrgbd", "pointcept", "pointcept_s3dis", "s3dis_npy")


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


@datasets.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--layout", type=click.Choice(LAYOUTS), required=True, help="Whose code is to read it.")
@click.option("--max-points", type=click.IntRange(min=1), help="VoteNet's: at most so many random points per scene.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of that choice.")
def export(store: Path, folder: Path, layout: str, max_points: int | None, seed: int) -> None:
    """Write the prepared scenes STORE into FOLDER as other code reads them.

    votenet: VoteNet's, H3DNet's, 3DETR's and MM-3DScene's ScanNet (aligned scenes). votenet_sunrgbd: VoteNet's and
    3DETR's SUN RGB-D, with turned boxes. pointcept: Pointcept's ScanNet (scenes that are not aligned). pointcept_s3dis:
    Pointcept's S3DIS, by areas. s3dis_npy: S3DIS as one npy file per room.
    """
    from pointloom.data.scene_store import SceneStore
    from pointloom.datasets.export import export_scenes

    num = export_scenes(SceneStore(store), folder, layout=layout, max_points=max_points, seed=seed)
    click.echo(f"Wrote {num} scenes to {folder}")
