"""Compile a pipeline, upload it once per revision and start it: ``python -m pipelines.submit``, or ``make submit``."""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipelines.client import Login, connect, follow, start, upload
from pipelines.cluster import DEFAULT, read_cluster
from pipelines.compile import compiled, component_of, read_documents
from pipelines.graph import build_pipeline, default_arguments
from pipelines.settings import PIPELINES, load_params, profile_file
from pipelines.single import build_single, choose_step
from pointloom._version import __version__
from pointloom.errors import ParamsError, PointloomError, WorkspaceError

ROOT = Path(__file__).parents[1]
IN_IMAGES = ("pointloom", "docker", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
EXIT_FAILED_RUN = 1
EXIT_USER_ERROR = 2
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Submission:
    """A compiled pipeline and what it is called.

    Attributes:
        pipeline: Name of the pipeline.
        version: Name of the version: git revision and digest, so that the same upload has the same name.
        package: The YAML to upload.
        arguments: Arguments of the run.
    """

    pipeline: str
    version: str
    package: str
    arguments: dict[str, str]


def revision(*, allow_dirty: bool = False) -> str:
    """Return the first 12 digits of the git revision.

    Raises:
        WorkspaceError: There is none, or files of the images differ from it.
    """
    try:
        found = _git("rev-parse", "HEAD")[:12]
        dirty = bool(_git("status", "--porcelain", "--", *IN_IMAGES))
    except (OSError, subprocess.SubprocessError) as error:
        raise WorkspaceError(f"{ROOT}: no git revision to name images and version by; give --image-tag") from error
    if dirty and not allow_dirty:
        raise WorkspaceError(
            f"{ROOT}: files differ from revision {found}, and images are named by revision; commit them and build the "
            "images, or give --image-tag with the tag of the images to use"
        )
    return found


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


def prepare_submission(pipeline: str, options: dict[str, Any]) -> Submission:
    """Read, check and compile everything that is sent.

    Raises:
        ParamsError: Parameters, cluster file or inputs are wrong.
        WorkspaceError: There is no clean revision to name images by.
    """
    cluster = read_cluster(options["cluster"])
    file = options["params"] or profile_file(pipeline, options["profile"])
    params = load_params(file, options["changes"], source=options["source"])
    tag = options["image_tag"] or f"{__version__}-{revision(allow_dirty=options['dry_run'])}"
    if options["only"]:
        stage, entry = choose_step(options["only"], params)
        inputs = dict(_pair(text) for text in options["inputs"])
        graph = build_single(component_of(stage), stage, entry, params, cluster, inputs=inputs, tag=tag)
    else:
        graph = build_pipeline(pipeline, params, cluster, tag=tag)
    package = compiled(graph)
    spec = read_documents(package)[0]
    known = {name: found.get("defaultValue") for name, found in spec["root"]["inputDefinitions"]["parameters"].items()}
    arguments = {name: value for name, value in default_arguments(params, cluster).items() if name in known}
    if options["source"]:
        arguments["source"] = options["source"]
    version = f"{tag}-{hashlib.sha256(package.encode()).hexdigest()[:8]}"
    return Submission(spec["pipelineInfo"]["name"], version, package, arguments)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ParamsError(f"--input {text}: expected NAME=URI, for example dataset=s3://bucket/path")
    return name, value


def read_login(token_file: Path | None, service_account: Path | None, cookie_file: Path | None) -> Login:
    """Read the login from files or, where none is given, from KF_PIPELINES_TOKEN; never from the command line.

    Raises:
        ParamsError: There are several, or one is empty.
    """
    given = [path for path in (token_file, service_account, cookie_file) if path]
    if len(given) > 1:
        raise ParamsError("give one of --token-file, --service-account-token and --cookie-file")
    if given and not given[0].read_text(encoding="utf-8").strip():
        raise ParamsError(f"{given[0]}: is empty, expected a login")
    if service_account:
        return Login(token_file=service_account)
    if cookie_file:
        return Login(cookie=cookie_file.read_text(encoding="utf-8").strip())
    token = token_file.read_text(encoding="utf-8").strip() if token_file else os.environ.get("KF_PIPELINES_TOKEN")
    return Login(token=token or None)


def send(made: Submission, options: dict[str, Any]) -> int:
    """Upload and start a submission, follow it where asked; returns the exit code.

    Raises:
        PointloomError: No server was given, it does not answer, or it refuses.
    """
    if not options["host"]:
        raise ParamsError("no server: give --host (or KF_PIPELINES_ENDPOINT), or --dry-run to only compile and check")
    login = read_login(options["token_file"], options["service_account_token"], options["cookie_file"])
    client = connect(options["host"], login, namespace=options["namespace"])
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"{made.pipeline}.yaml"
        package.write_text(made.package, encoding="utf-8")
        pipeline_id, version_id = upload(client, package, pipeline=made.pipeline, version=made.version)
    names = {"experiment": options["experiment"], "name": options["run_name"] or f"{made.pipeline} {made.version}"}
    found = start(
        client, **names, pipeline_id=pipeline_id, version_id=version_id, params=made.arguments,
        schedule=options["schedule"], namespace=options["namespace"], service_account=options["service_account"],
    )  # fmt: skip
    kind = "recurringrun" if options["schedule"] else "runs"
    click.echo(f"{options['host'].rstrip('/')}/#/{kind}/details/{found}")
    if not options["wait"]:
        return 0
    state = follow(client, found, tell=lambda line: click.echo(f"{made.pipeline}: {line}"), poll_s=options["poll_s"])
    return 0 if state == "SUCCEEDED" else EXIT_FAILED_RUN


@click.command()
@click.argument("pipeline", type=click.Choice(PIPELINES))
@click.option("--host", envvar="KF_PIPELINES_ENDPOINT", help="Address of Kubeflow Pipelines, before /apis.")
@click.option("--namespace", help="Your profile's namespace, where Kubeflow has several users.")
@click.option("--token-file", type=FILE, help="File with a bearer token; else KF_PIPELINES_TOKEN, if it is set.")
@click.option("--service-account-token", type=FILE, help="Projected service account token; read for every request.")
@click.option("--cookie-file", type=FILE, help="File with the session cookie, NAME=VALUE, of a logged-in browser.")
@click.option("--profile", type=click.Choice(["smoke", "demo", "paper"]), default="paper", show_default=True)
@click.option("--params", type=FILE, help="A params.yaml of your own instead of a profile.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another value: pretrain.mae.epochs=20.")
@click.option("--source", help="Folder of raw shapes as the steps see it; else they are generated, or raw/ is read.")
@click.option("--cluster", type=FILE, default=DEFAULT, help="Description of the cluster.")
@click.option("--only", metavar="STAGE[.ENTRY]", help="One stage alone, on artefacts of earlier runs (--input).")
@click.option("--input", "inputs", multiple=True, metavar="NAME=URI", help="With --only: an input artefact.")
@click.option("--image-tag", help="Tag of the images; default: version and git revision.")
@click.option("--experiment", default="pointloom", show_default=True, help="Group of runs.")
@click.option("--run-name", help="Name of the run; default: pipeline and version.")
@click.option("--service-account", help="Kubernetes account that the steps run under.")
@click.option("--schedule", metavar="CRON", help="Start it by the clock: six fields, seconds first.")
@click.option("--wait", is_flag=True, help="Follow the run; exit code 1 unless it succeeds.")
@click.option("--poll-s", default=10.0, show_default=True, help="With --wait: seconds between two looks.")
@click.option("--dry-run", is_flag=True, help="Compile and check, print what would be sent, send nothing.")
def main(pipeline: str, **options: Any) -> None:
    """Compile PIPELINE, upload it once per revision, and start it."""
    try:
        if options["wait"] and options["schedule"]:
            raise ParamsError("--wait follows a run, and --schedule starts none now; give one of them")
        made = prepare_submission(pipeline, options)
        click.echo(f"{made.pipeline}, version {made.version}")
        if options["dry_run"]:
            click.echo(made.package)
            return
        code = send(made, options)
    except PointloomError as error:
        click.echo(f"Error: {error}", err=True)
        code = EXIT_USER_ERROR
    sys.exit(code)


if __name__ == "__main__":
    main()
