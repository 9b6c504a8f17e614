"""A stage as a step of a Kubeflow pipeline: what KFP hands over is read, what it wants to know is written.

KFP gives a container its ``ExecutorInput`` as JSON and reads ``executor_output.json`` afterwards. Without that file a
container's artefacts have no metadata on a cluster, and are lost by ``kfp.local``. Needs neither kfp nor a cluster.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pointloom.errors import DataError, ParamsError
from pointloom.stages.launch import run_stage
from pointloom.stages.params import StageParams
from pointloom.stages.signature import StageSignature

GATHERED = "__"
"""``models__mae`` is the input that becomes ``mae`` inside the folder given as ``--models``."""

PAGE = "report.html"
MOUNTS = {"gs": "/gcs", "minio": "/minio", "s3": "/s3"}
DESCRIPTIONS = ("dataset.json", "views.json", "captions.json", "features.json")
CARD_KEYS = {"weights_sha256": "checkpoint_sha256", "builder": "builder", "method": "method", "labels": "labels"}


@dataclass(frozen=True)
class Step:
    """What a stage needs of an ``ExecutorInput``.

    Attributes:
        name: Entry of the stage's section (``mae`` of ``pretrain.mae``), empty where there is only one.
        inputs: Input artefacts as KFP describes them (``uri``, ``type``, ``metadata``), by name.
        outputs: Output artefacts, by name.
        output_file: The ``executor_output.json`` to write.
    """

    name: str
    inputs: Mapping[str, dict[str, Any]]
    outputs: Mapping[str, dict[str, Any]]
    output_file: Path


def read_step(text: str) -> Step:
    """Read an ``ExecutorInput``.

    Raises:
        ParamsError: It is none.
    """
    try:
        content = json.loads(text)
        inputs, outputs = content.get("inputs", {}), content["outputs"]
        return Step(
            name=str(inputs.get("parameterValues", {}).get("name", "")),
            inputs={key: value["artifacts"][0] for key, value in inputs.get("artifacts", {}).items()},
            outputs={key: value["artifacts"][0] for key, value in outputs.get("artifacts", {}).items()},
            output_file=Path(outputs["outputFile"]),
        )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ParamsError(
            f"--executor-input: not KFP's ExecutorInput ({type(error).__name__}: {error}); it is given by Kubeflow "
            "Pipelines as {{$}}, leave the option out elsewhere"
        ) from error


def local_path(uri: str) -> Path:
    """Return where KFP has an artefact's files inside the container.

    Raises:
        ParamsError: The storage is none that KFP mounts.
    """
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        return Path(parts.path)
    if parts.scheme not in MOUNTS:
        raise ParamsError(f"artefact {uri}: expected a path, file://, {', '.join(f'{key}://' for key in MOUNTS)}")
    return Path(f"{MOUNTS[parts.scheme]}/{parts.netloc}{parts.path}")


def run_step(signature: StageSignature, params: StageParams, paths: Mapping[str, Path], executor_input: str) -> None:
    """Run a stage and tell KFP what it made.

    A stage names an encoder or a result after its folder; KFP names folders after the argument. So outputs are written
    to a folder with the entry's name and moved to where KFP looks when the stage has succeeded.

    Args:
        signature: The stage.
        params: Its validated parameters.
        paths: Its paths by argument name.
        executor_input: KFP's ``ExecutorInput`` as JSON.

    Raises:
        ParamsError: ``executor_input`` is not what KFP gives.
        DataError: The stage has not written one of its outputs.
    """
    step = read_step(executor_input)
    link_inputs(step, paths)
    made = {name: paths[name] for name, artifact in signature.artifacts.items() if artifact.direction == "out"}
    staged = {
        name: path.with_name(f".{path.name}.staged") / step.name
        for name, path in made.items()
        if step.name and signature.artifacts[name].kind != "Metrics"
    }
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    run_stage(signature, params, {**paths, **staged})
    for name, folder in staged.items():
        _move(folder, made[name])
    for name, artifact in step.outputs.items():
        if artifact.get("type", {}).get("schemaTitle") == "system.HTML":
            made[name] = local_path(artifact["uri"])
            made[name].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths["report"] / PAGE, made[name])
    missing = [f"{name} ({path})" for name, path in made.items() if not path.exists()]
    if missing:
        raise DataError(f"{signature.name} has not written {', '.join(missing)}; KFP would register nothing as made")
    _write_output(step, made, paths["metrics"])


def link_inputs(step: Step, paths: Mapping[str, Path]) -> None:
    """Make the folders that hold one entry per input artefact: ``models__mae`` is linked as ``mae`` in ``models``."""
    for name, artifact in step.inputs.items():
        argument, *inside = name.split(GATHERED)
        if not inside:
            continue
        suffix = ".json" if artifact.get("type", {}).get("schemaTitle") == "system.Metrics" else ""
        link = paths[argument].joinpath(*inside).with_suffix(suffix)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(local_path(artifact["uri"]))


def _move(folder: Path, target: Path) -> None:
    """Move an output to its place; a link stays behind for the sender of the tracker, which may still be reading."""
    if target.is_dir():
        shutil.rmtree(target)
    if folder.exists():
        folder.rename(target)
        folder.symlink_to(target)


def _write_output(step: Step, made: Mapping[str, Path], metrics: Path) -> None:
    """Write ``executor_output.json``: all output artefacts with their metadata."""
    from pointloom.stages.runs import write_json

    record = json.loads(metrics.read_text(encoding="utf-8"))
    lineage = lineage_of(record)
    artifacts = {}
    for name, artifact in step.outputs.items():
        described = describe(made[name])
        if made[name] == metrics:
            described = {key: value for key, value in record["metrics"].items() if math.isfinite(value)}
        metadata = {**artifact.get("metadata", {}), **lineage, **described}
        kept = {"name": artifact.get("name", name), "uri": artifact["uri"], "metadata": metadata}
        artifacts[name] = {"artifacts": [kept]}
    write_json(step.output_file, {"artifacts": artifacts})


def lineage_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a metrics file says about where its numbers come from, without what is unknown."""
    run = record["run"]
    known = {
        "stage": run["stage"],
        "entry": run["name"],
        "mlflow_run_id": run["mlflow_run_id"],
        "kfp_run_id": run.get("kfp_run_id"),
        "data_digest": run["data_digest"],
        "git_revision": run["git"]["revision"],
        "params_sha256": run["params_sha256"],
        "pointloom_version": run["versions"]["pointloom"],
        **{f"input_{name}": digest for name, digest in run.get("inputs", {}).items()},
    }
    return {key: str(value) for key, value in known.items() if value}


def describe(path: Path) -> dict[str, str]:
    """Return digest or checksum of an output, read from the description inside it; empty where it has none."""
    found: dict[str, str] = {}
    for name in DESCRIPTIONS:
        if (path / name).is_file():
            digest = json.loads((path / name).read_text(encoding="utf-8")).get("digest")
            found |= {"digest": str(digest)} if digest else {}
    card = path / "encoder.json"
    if card.is_file():
        content = json.loads(card.read_text(encoding="utf-8"))
        found |= {label: str(content[key]) for key, label in CARD_KEYS.items() if content.get(key)}
    return found
