"""Rehearse a pipeline on this machine, every step in a container: ``python -m pipelines.run``, or ``make rehearse``.

The graph, the components and the images are those of a cluster; only the place is another. Containers have no network
(unless MLflow is to be told), a read-only root and the user's own id.
"""

import os
import sys
from pathlib import Path
from typing import Any

import click
from docker.client import DockerClient
from docker.errors import DockerException
from docker.types import Mount
from kfp import local

from pipelines.cluster import Cluster, read_cluster
from pipelines.graph import build_pipeline
from pipelines.settings import PIPELINES, load_params, profile_file
from pointloom.errors import BackendError, DataError, PointloomError

EXIT_FAILED_RUN = 1
EXIT_USER_ERROR = 2
COMPILED = "compiled"
IMAGES = ("pointloom-data", "pointloom-train", "pointloom-multimodal")


def rehearse(
    name: str, params: dict[str, Any], *, folder: Path, tag: str, source: Path | None, tracking_uri: str | None
) -> Path:
    """Run a pipeline to its end and return its report.

    Args:
        name: One of ``PIPELINES``.
        params: All sections, validated.
        folder: Where artefacts, resume state and compiled kernels are kept; a second rehearsal goes beside the first.
        tag: Tag of the images.
        source: Folder of raw shapes, None for generated ones.
        tracking_uri: MLflow server as containers on this machine's network reach it; None records nothing.

    Raises:
        BackendError: No Docker engine answers, or an image is missing.
        DataError: The run made no report.
    """
    check_images(name, tag)
    artifacts, state, raw, compiled = (folder / part for part in ("artifacts", "state", "raw", COMPILED))
    for path in (artifacts, state, raw, compiled):
        path.mkdir(parents=True, exist_ok=True)
    local.init(runner(folder, source or raw, tracking_uri), pipeline_root=str(artifacts), enable_caching=False)
    pipeline = build_pipeline(name, params, here(read_cluster()), tag=tag)
    before = reports(artifacts)
    pipeline(source=str(source or raw), state=str(state))
    made = reports(artifacts) - before
    if len(made) != 1:
        raise DataError(f"{artifacts}: expected one new report, found {len(made)}; the lines above say what failed")
    return made.pop()


def check_images(name: str, tag: str) -> None:
    """Ask the engine for the images that a pipeline needs.

    Raises:
        BackendError: No Docker engine answers, or an image is missing.
    """
    try:
        client = DockerClient.from_env()
        known = {known for image in client.images.list() for known in image.tags}
        client.close()
    except DockerException as error:
        raise BackendError(f"no Docker engine answers ({error}); start it, or give DOCKER_HOST") from error
    wanted = IMAGES if name == "multimodal" else IMAGES[:2]
    if missing := [f"{image}:{tag}" for image in wanted if f"{image}:{tag}" not in known]:
        raise BackendError(f"images are missing: {', '.join(missing)}; run: make images TAG={tag}")


def runner(folder: Path, source: Path, tracking_uri: str | None) -> local.DockerRunner:
    """Return what starts the containers."""
    mounts = [Mount(str(folder), str(folder), type="bind")]
    if not source.is_relative_to(folder):
        mounts.append(Mount(str(source), str(source), type="bind", read_only=True))
    tracking = {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_EXPERIMENT_NAME": "rehearsal"} if tracking_uri else {}
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        init=True,
        shm_size="1g",
        network_mode="host" if tracking_uri else "none",
        environment={"NUMBA_CACHE_DIR": str(folder / COMPILED), **tracking},
        mounts=mounts,
    )


def here(cluster: Cluster) -> Cluster:
    """Return a cluster without what only a cluster has: registry, volume, secrets, webhook, addresses, lost nodes."""
    images = cluster.images.model_copy(update={"registry": "", "pull_secrets": []})
    classes = {
        name: size.model_copy(update={"retries": 0, "gpus": 0, "nodes": 1}) for name, size in cluster.classes.items()
    }
    left_out: dict[str, Any] = {"storage": None, "shards": {}, "env": {}, "secrets": [], "webhook": None}
    return cluster.model_copy(update={"images": images, "classes": classes, **left_out})


def reports(artifacts: Path) -> set[Path]:
    """Return the report pages below a folder of artefacts."""
    return set(artifacts.glob("*/report/*/report.html"))


@click.command()
@click.argument("pipeline", type=click.Choice(PIPELINES), default="pretrain")
@click.option("--profile", type=click.Choice(["smoke", "demo", "paper"]), default="smoke", show_default=True)
@click.option(
    "--params", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A params.yaml of your own."
)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another value: pretrain.mae.epochs=20.")
@click.option("--source", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of raw shapes.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/rehearsal"), show_default=True)
@click.option("--tag", required=True, help="Tag of the images, as `make images` prints it.")
@click.option("--tracking-uri", help="MLflow server to record in; without it, containers have no network.")
def main(pipeline: str, **options: Any) -> None:
    """Run PIPELINE in containers on this machine and print where its report is."""
    try:
        file = options["params"] or profile_file(pipeline, options["profile"])
        params = load_params(file, options["changes"], source=options["source"])
        page = rehearse(
            pipeline,
            params,
            folder=options["folder"].resolve(),
            tag=options["tag"],
            source=options["source"].resolve() if options["source"] else None,
            tracking_uri=options["tracking_uri"],
        )
    except PointloomError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_USER_ERROR)
    except RuntimeError as error:  # a step failed; kfp has shown its output
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_FAILED_RUN)
    click.echo(page)


if __name__ == "__main__":
    main()
