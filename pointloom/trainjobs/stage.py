"""A training stage whose work is done by a TrainJob: its inputs and outputs lie on the volume that all pods share."""

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from pointloom.errors import DataError, ParamsError
from pointloom.stages.launch import command
from pointloom.stages.params import StageParams
from pointloom.stages.signature import StageSignature
from pointloom.trainjobs.api import own_cluster
from pointloom.trainjobs.follow import TrainJob
from pointloom.trainjobs.manifest import TrainJobSettings, train_job

logger = logging.getLogger(__name__)


def run_as_train_job(signature: StageSignature, params: StageParams, paths: Mapping[str, Path]) -> None:
    """Run a stage on the machines that ``POINTLOOM_TRAINJOB`` describes, and put its outputs where they belong.

    The job's name follows from the pipeline run, the parameters and the paths, so that another attempt of the same
    step finds the job of the first.

    Raises:
        ParamsError: The description is wrong, or this is no cluster.
        DataError: The job has succeeded and an output is missing.
        ApiError: The API server refuses.
        SystemExit: The job has failed, see ``TrainJob.run``.
    """
    settings = read_settings(os.environ["POINTLOOM_TRAINJOB"])
    api = own_cluster()
    if api is None:
        raise ParamsError(
            "POINTLOOM_TRAINJOB asks for a TrainJob, and this is no pod of a cluster: unset it, or give the address of "
            "`kubectl proxy` as POINTLOOM_KUBERNETES_API"
        )
    name = job_name(signature.name, params, paths)
    work = Path(settings.mount) / "trainjobs" / name
    shared = share_paths(signature, paths, work, mount=Path(settings.mount))
    words = command(signature, params, shared)
    job = TrainJob(api, train_job(name, settings, words, namespace=api.namespace), show=_show)
    job.run()
    fetch_outputs(signature, shared, paths)
    job.delete()
    shutil.rmtree(work, ignore_errors=True)


def read_settings(text: str) -> TrainJobSettings:
    """Read ``POINTLOOM_TRAINJOB``.

    Raises:
        ParamsError: It is not what ``pipelines/cluster.py`` writes.
    """
    try:
        return TrainJobSettings.model_validate_json(text)
    except ValidationError as error:  # values are left out: one of them may be private
        lines = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors(include_input=False)]
        raise ParamsError(f"POINTLOOM_TRAINJOB: {'; '.join(lines)}") from None


def job_name(stage: str, params: StageParams, paths: Mapping[str, Path]) -> str:
    """Return a name that is the same for all attempts of a step and different for all other steps."""
    known = [
        os.environ.get("KFP_RUN_ID", ""), stage, params.model_dump(mode="json"),
        {name: str(path) for name, path in paths.items()},
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return f"pointloom-{stage}-{digest[:12]}"


def share_paths(signature: StageSignature, paths: Mapping[str, Path], work: Path, *, mount: Path) -> dict[str, Path]:
    """Return the paths of a stage on the shared volume; inputs that are elsewhere are copied there, once.

    Args:
        signature: The stage.
        paths: Its paths as this pod sees them.
        work: Folder on the volume.
        mount: Where the volume is.
    """
    shared = {}
    for name, artifact in signature.artifacts.items():
        path = paths[name].absolute()
        if path.is_relative_to(mount):
            shared[name] = path
            continue
        shared[name] = work / name / path.name
        if artifact.direction == "in":
            _copy(path, shared[name])
    return shared


def fetch_outputs(signature: StageSignature, shared: Mapping[str, Path], paths: Mapping[str, Path]) -> None:
    """Copy what the job has made to where the stage was asked to write it.

    Raises:
        DataError: An output is missing.
    """
    made = [name for name, artifact in signature.artifacts.items() if artifact.direction == "out"]
    missing = [f"{name} ({shared[name]})" for name in made if not shared[name].exists()]
    if missing:
        raise DataError(
            f"the TrainJob has succeeded and not written {', '.join(missing)}: do its pods mount the same volume?"
        )
    for name in made:
        if shared[name] != paths[name].absolute():
            _remove(paths[name])
            _copy(shared[name], paths[name])


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder so that the target is complete or not there; one that is there stays."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    partial.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _show(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
