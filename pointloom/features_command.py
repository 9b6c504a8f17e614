"""``pointloom features``: what an encoder of scenes sees in a scan."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("scan", type=FILE)
@click.option("--encoder", required=True, help="Encoder of scenes: folder, name in this workspace, or MLflow URI.")
@click.option("--output", type=FILE, help="Folder to write; default: the scan's name with -features.")
@click.option("--labelled", type=FILE, help="Another scan, whose labels are carried over.")
@click.option("--labels", type=FILE, help="npy file: an integer per point of the labelled scan, -1 where unknown.")
@click.option("--metric", type=click.Choice(["cosine", "l2", "l1"]), default="cosine", show_default=True)
@click.option("--up", type=click.Choice(["x", "y", "z"]), default="z", show_default=True, help="Up axis of the files.")
@click.option(
    "--meters", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Length of a unit of the files in metres.",
)  # fmt: skip
def features(scan: Path, encoder: str, output: Path | None, up: str, meters: float, **labelling: object) -> None:
    """Compute a feature for every point of a scan: pointloom features room.ply --encoder models/msm.

    Writes features.npz, pca.ply (features as colours) and view.html; with a labelled scan also a label per point, that
    of the labelled super-point whose features are nearest.
    """
    from pointloom.scan_features import Labelled, ScanOptions, write_scan_features

    given = [name for name in ("labelled", "labels") if labelling[name] is not None]
    if len(given) == 1:
        raise click.UsageError("--labelled and --labels belong together: give both or none")
    labelled = None
    if given:
        labelled = Labelled(labelling["labelled"], labelling["labels"], labelling["metric"])  # type: ignore[arg-type]
    folder = output or scan.with_name(f"{scan.stem}-features")
    made = write_scan_features(
        scan, encoder=encoder, output=folder, options=ScanOptions(up=up, meters=meters), labelled=labelled
    )
    click.echo(f"{folder}: {made['points']:,} points, {made['channels']} channels; open {folder / 'view.html'}")
