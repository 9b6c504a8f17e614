"""The ``pointloom`` command: a sub-command per stage, made from the stage's signature, and a few around them."""

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from pointloom._version import __version__
from pointloom.ablate_command import ablate
from pointloom.dataset_commands import datasets
from pointloom.errors import PointloomError
from pointloom.features_command import features
from pointloom.lineage_command import lineage
from pointloom.plan_command import plan
from pointloom.stage_command import stage_command
from pointloom.stages import STAGES
from pointloom.workspace import PIPELINES, PROFILES, WorkspaceChoices, init_workspace

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130
OFFICIAL = ("msm", "point-mae", "point-m2ae", "point-pqae")
KEPT = "what was finished is kept; the same command continues from there"
PROFILE_HELP = (
    "Set of parameters: smoke = a minute, to see that everything works; demo = real training in minutes on two CPU "
    "cores; paper = the published values, for a GPU."
)
PIPELINE_HELP = (
    "pretrain = masked autoencoding of points alone, Point-MAE; systems = Point-M2AE and Point-PQAE beside it; "
    "multimodal = views, captions, alignment with text and images, distillation, beside Point-MAE; "
    "scenes = rooms, MM-3DScene and Masked Scene Modeling; "
    "detection = objects in rooms, VoteNet with and without MM-3DScene, 3DETR."
)


class SectionedGroup(click.Group):
    """A group whose help lists commands in the order of use, under headings."""

    sections: Sequence[tuple[str, Sequence[str]]] = (
        ("Workspaces", ("init", "plan", "run", "ablate", "lineage", "ui", "doctor", "datasets")),
        ("Stages, in the order of the pipeline", tuple(STAGES)),
        ("Using an encoder", ("encode", "features", "search", "convert")),
    )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of commands per section."""
        for title, names in self.sections:
            rows = [
                (name, command.get_short_help_str(90)) for name in names if (command := self.get_command(ctx, name))
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start here:  pointloom init my3d --data path/to/meshes && cd my3d && pointloom run",
)
@click.version_option(__version__, prog_name="pointloom")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="More about what is being done.")
def cli(quiet: bool, verbose: bool) -> None:
    """Self-supervised pre-training for 3D point clouds: shapes in, an encoder and a benchmark report out.

    A workspace is a folder with params.yaml (all values), dvc.yaml (the graph of stages) and everything they make.
    Every stage can also be run alone; `pointloom STAGE --help` lists its parameters.
    """
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pointloom").setLevel(level)


for _name, _function in STAGES.items():
    cli.add_command(stage_command(_name, _function))
cli.add_command(ablate)
cli.add_command(datasets)
cli.add_command(features)
cli.add_command(lineage)
cli.add_command(plan)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--pipeline", type=click.Choice(PIPELINES), default="pretrain", show_default=True, help=PIPELINE_HELP)
@click.option("--profile", type=click.Choice(PROFILES), default="demo", show_default=True, help=PROFILE_HELP)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of meshes or clouds; without it, generated shapes."
)
@click.option("--train-list", type=click.Path(path_type=Path), help="File of relative paths: the training split.")
@click.option("--test-list", type=click.Path(path_type=Path), help="File of relative paths: the test split.")
@click.option("--up", type=click.Choice(["x", "y", "z"]), help="Up axis of the files; default by file type.")
def init(**choices: Any) -> None:
    """Make a workspace in FOLDER: all parameters, the graph of stages, a place for the results.

    A second time with the same choices changes nothing.
    """
    made = init_workspace(WorkspaceChoices(**choices))
    folder = choices["folder"]
    click.echo(f"{'Made' if made else 'Already there:'} workspace {folder}; next: cd {folder} && pointloom run")


@cli.command()
@click.option("-w", "--workspace", type=click.Path(path_type=Path), default=".", help="Workspace folder.")
def run(workspace: Path) -> None:
    """Run all stages that are not up to date; print where the report is.

    Checks every parameter first. Only one run at a time in a workspace; Ctrl-C stops at a point that the next
    run continues from. Other values for one run: dvc exp run -S pretrain.mae.epochs=20.
    """
    from pointloom.run import run_workspace

    click.echo(f"Report: {run_workspace(workspace)}")


@cli.command()
@click.option("-w", "--workspace", type=click.Path(path_type=Path), default=".", help="Workspace folder.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port; default: the first free one from 5000.")
def ui(workspace: Path, port: int | None) -> None:
    """Serve MLflow's user interface of a workspace and print its address."""
    from pointloom.ui import serve

    serve(workspace, port=port, announce=click.echo)


@cli.command()
@click.option("-w", "--workspace", type=click.Path(path_type=Path), default=".", help="Workspace folder.")
@click.option("--cluster", type=click.Path(path_type=Path), help="Cluster file; what it names is asked for.")
@click.option("--namespace", help="Where its steps run; default: kubectl's own.")
@click.option("--image-tag", help="Tag of its images; default: version and git revision.")
def doctor(workspace: Path, cluster: Path | None, namespace: str | None, image_tag: str | None) -> None:
    """Look at this machine, and a cluster: what is installed, usable, missing, and how to get it."""
    from pointloom.cluster_file import check_cluster
    from pointloom.doctor import examine

    failed = False
    for check in chain(examine(workspace), check_cluster(cluster, namespace, image_tag) if cluster else ()):
        failed |= check.state == "bad"
        click.echo(f"{check.state:>4}  {check.name:<15} {check.text}")
    if failed:
        raise SystemExit(1)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--encoder", default="models/mae", show_default=True, help="Folder of an encoder, or an MLflow URI.")
@click.option(
    "--output", type=click.Path(path_type=Path), default="features.npz", show_default=True, help="File to write."
)
@click.option("--up", type=click.Choice(["x", "y", "z"]), help="Up axis of the files; default by file type.")
def encode(files: tuple[Path, ...], encoder: str, output: Path, up: str | None) -> None:
    """Compute features of meshes or point clouds: one row per file.

    The npz file holds `path` (F,) and `feature` (F, D).
    """
    from pointloom.encode import encode_files

    shape = encode_files(files, encoder=encoder, output=output, up=up)
    click.echo(f"{output}: feature {shape[0]} x {shape[1]}")


@cli.command()
@click.argument("query", required=False)
@click.option(
    "--like", type=click.Path(path_type=Path), help="Mesh or point cloud whose like to find, instead of words."
)
@click.option(
    "--in", "workspace", type=click.Path(path_type=Path), default=".", help="Workspace folder; default: here."
)
@click.option("--index", help="Entry of the align section; default: the first one of params.yaml.")
@click.option("--split", type=click.Choice(["all", "train", "test"]), default="all", show_default=True)
@click.option("--top", type=click.IntRange(1), default=12, show_default=True, help="Number of shapes.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of the page; default: search/ in the workspace."
)
@click.option("--json", "as_data", is_flag=True, help="Print JSON instead of a table.")
@click.option("--up", type=click.Choice(["x", "y", "z"]), help="Up axis of the file; default by file type.")
def search(
    *,
    query: str | None,
    like: Path | None,
    workspace: Path,
    index: str | None,
    split: str,
    top: int,
    output: Path | None,
    as_data: bool,
    up: str | None,
) -> None:
    """Find shapes by words, or by a shape: pointloom search "a round table" --in FOLDER.

    Ranks a workspace's objects by their cosine to QUERY in the space of an aligned encoder, prints them, and writes a
    page with pictures (search.html) and the same list as search.json.
    """
    from pointloom.report.hits import as_json, as_table
    from pointloom.shape_search import default_folder, find, open_gallery, write_page

    gallery = open_gallery(workspace, index)
    found = find(gallery, query, like=like, split=split, top=top, up=up)
    page = write_page(gallery, found, output or default_folder(gallery, found))
    if found.unknown:
        click.echo(f"The text teacher does not know {', '.join(found.unknown)}: ranked by the other words.", err=True)
    click.echo(f"{found.searched} objects, encoder {found.index} (labels: {found.labels})", err=True)
    click.echo(as_json(found) if as_data else as_table(found), nl=not as_data)
    click.echo(f"Page: {page}", err=as_data)


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not a JSON object: {error}") from error
    if not isinstance(found, dict):
        raise click.BadParameter(f"expected a JSON object, got {text}")
    return found


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "origin", type=click.Choice(OFFICIAL), help="SOURCE is a checkpoint of this repository.")
@click.option("--to", "target", type=click.Choice(OFFICIAL), help="SOURCE is an encoder; write it for this repository.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Encoder folder or checkpoint to write.")
@click.option(
    "--up",
    type=click.Choice(["y", "z"]),
    help="Axis that points up in the repository's clouds; here it is +Z. Default: as published (objects y, scenes z).",
)
@click.option("--num-points", type=click.IntRange(1), help="Points per cloud; default: those of the pre-training.")
@click.option(
    "--encoder-args",
    metavar="JSON",
    default="{}",
    callback=lambda _context, _option, text: _json_object(text),
    help='Arguments of the encoder, such as {"num_groups": 128}; default: those of the pre-training.',
)
@click.option("--leave-out", multiple=True, metavar="PREFIX", help="Names of further weights that are not wanted.")
def convert(
    *,
    source: Path,
    origin: str | None,
    target: str | None,
    output: Path,
    up: str | None,
    num_points: int | None,
    encoder_args: dict[str, Any],
    leave_out: tuple[str, ...],
) -> None:
    """Turn a published checkpoint (--from) into an encoder, or an encoder into such a checkpoint (--to).

    Takes pre-trained and fine-tuned models, runs no code from the file, and says what matched. Every weight of the
    encoder must be there and every other weight must be known, or nothing is written.
    """
    from pointloom.convert import convert_checkpoint, describe, export_encoder

    if (origin is None) == (target is None):
        raise click.UsageError("give either --from or --to")
    if target is not None:
        click.echo(f"{output}: {export_encoder(source, output, layout=target, up=up)} weights, all of the encoder")
    if origin is not None:
        made = convert_checkpoint(
            source, output, layout=origin, up=up, num_points=num_points,
            encoder_args=encoder_args, leave_out=leave_out,
        )  # fmt: skip
        click.echo(f"{output}: {describe(made)}")


def main() -> NoReturn:
    """Entry point: bad input is one message and exit code 2, Ctrl-C is 130, SIGTERM is 75 (a retry continues)."""
    signal.signal(signal.SIGTERM, _on_terminate)
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # endless spinning is 20 times slower beside other work
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except PointloomError as error:
        code = _fail(f"Error: {error}", EXIT_USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        code = _fail(f"Stopped: {KEPT}.", EXIT_INTERRUPTED)
    except SystemExit as request:
        code = request.code
        if code == EXIT_PREEMPTED:
            _fail(f"Asked to end: {KEPT}.", EXIT_PREEMPTED)
    except Exception as error:
        message = describe_environment_error(error)
        if message is None:
            raise
        code = _fail(f"Error: {message}", EXIT_USER_ERROR)
    sys.exit(code if isinstance(code, int) else 0)


def _on_terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
    raise SystemExit(EXIT_PREEMPTED)


def _fail(message: str, code: int) -> int:
    click.echo(message, err=True)
    return code


def describe_environment_error(error: BaseException) -> str | None:
    """Explain an error of the machine (full disk, no permission), None when it is something else."""
    for cause in _chain(error):
        number = cause.errno if isinstance(cause, OSError) else None
        text = str(cause)
        if number in {errno.ENOSPC, errno.EDQUOT} or "No space left" in text or f"errno = {errno.ENOSPC}" in text:
            return f"the disk is full ({text}). Free some space; {KEPT}."
        if number == errno.EFBIG or f"errno = {errno.EFBIG}" in text:
            return f"a file became larger than this machine allows ({text}). Raise the limit (ulimit -f); {KEPT}."
        if isinstance(cause, PermissionError):
            return f"no permission: {text}. Choose another folder or change its permissions."
        if number == errno.EROFS:
            return f"the file system is read-only: {text}."
        if cause is error and isinstance(cause, NotADirectoryError | IsADirectoryError | FileExistsError):
            return f"a file is where a folder is needed, or a folder where a file is: {text}. Give another path."
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


if __name__ == "__main__":
    main()
