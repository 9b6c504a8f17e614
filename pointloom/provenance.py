"""What ran, what it used and what it made, read from wherever it was recorded: files of a workspace, MLflow, Kubeflow.

All three speak of the same things by the same names: digests of data families, checksums of encoders, ids of runs.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pointloom.errors import WorkspaceError
from pointloom.report.lineage import run_facts
from pointloom.run import stage_records
from pointloom.stages.executor import describe
from pointloom.train.spool import TrackingTarget, without_login

OUTPUTS = {
    "prepare": ("data/objects",),
    "render": ("data/views/{name}",),
    "caption": ("data/captions/{name}",),
    "embed": ("data/features/{name}",),
    "pretrain": ("models/{name}",),
    "align": ("models/{name}", "results/align/{name}"),
    "distill": ("models/{name}",),
    "finetune": ("results/finetune/{name}",),
    "probe": ("results/probe/{name}",),
    "report": ("report",),
}
"""Stage -> where ``dvc.yaml`` lets it write."""

KINDS = {
    "prepare": "dataset",
    "render": "views",
    "caption": "captions",
    "embed": "features",
    "pretrain": "encoder",
    "align": "encoder",
    "distill": "encoder",
}
"""Stage -> the kind of thing it makes that has an identity of its own."""

MADE_TAGS = {"prepare": "data.digest", "render": "views.digest", "caption": "captions.digest"}
MADE_TAGS |= {"embed": "features.digest", **dict.fromkeys(("pretrain", "align", "distill"), "encoder.sha256")}
"""Stage -> the tag of its MLflow run that holds the identity of what it made."""


@dataclass(frozen=True)
class Run:
    """One run of a stage, or of a whole workspace (stage ``run``).

    Attributes:
        stage: Name of the stage.
        name: Entry of its section, empty where there is only one.
        started: UTC, ``2026-01-31T12:00:00Z``.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        mlflow: Id of the run in MLflow, empty when it was not recorded there.
        parent: Id of the MLflow run around it.
        kubeflow: Id of the pipeline's run.
        revision: Git revision of pointloom's source.
        dirty: Whether the source had been edited.
        params: SHA-256 of the parameters.
        used: Digest or checksum of the inputs by name.
        made: Digest or checksum of what it made, None where that is not known.
        outputs: Paths of what it made.
        place: Folder where it ran.
    """

    stage: str
    name: str
    started: str = ""
    status: str = "FINISHED"
    mlflow: str = ""
    parent: str = ""
    kubeflow: str = ""
    revision: str = ""
    dirty: bool | None = None
    params: str = ""
    used: Mapping[str, str] = field(default_factory=dict)
    made: str | None = None
    outputs: tuple[str, ...] = ()
    place: str = ""

    @property
    def label(self) -> str:
        """Return stage and entry, ``pretrain/mae``."""
        return f"{self.stage}/{self.name}" if self.name else self.stage


def workspace_runs(folder: Path) -> Iterator[Run]:
    """Read the metrics files of a workspace, and the descriptions beside what their stages made."""
    for record in stage_records(folder).values():
        run = record["run"]
        stage, name = str(run.get("stage", "")), str(run.get("name") or "")
        paths = [
            path.format(name=name) for path in OUTPUTS.get(stage, ()) if (folder / path.format(name=name)).exists()
        ]
        described = describe(folder / paths[0]) if paths and stage in KINDS else {}
        facts = run_facts(run)
        yield Run(
            stage=stage,
            name=name,
            started=str(facts["started"] or ""),
            mlflow=str(facts["mlflow_run_id"] or ""),
            kubeflow=str(run.get("kfp_run_id") or ""),
            revision=str(facts["git"] or ""),
            dirty=facts["dirty"],
            params=str(facts["params_sha256"] or ""),
            used=_used(run.get("inputs"), facts["data_digest"], stage),
            made=described.get("digest", described.get("checkpoint_sha256")),
            outputs=tuple(paths),
            place=str(folder),
        )


def server_runs(target: TrackingTarget) -> Iterator[Run]:
    """Read the runs of an experiment from MLflow; parts of a stage that was split are left out.

    Raises:
        BackendError: The store needs a package that is not installed.
        WorkspaceError: It does not answer.
    """
    for recorded in _recorded_runs(target):
        info, tags = recorded.info, recorded.data.tags
        stage = tags.get("stage", "")
        if not stage or tags.get("shard"):
            continue
        used = {key[6:-7]: tags[key] for key in tags if key.startswith("input.") and key.endswith(".digest")}
        yield Run(
            stage=stage,
            name=info.run_name.removeprefix(stage).strip("/") if stage != "run" else "",
            started=datetime.fromtimestamp(info.start_time / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            status=str(info.status),
            mlflow=str(info.run_id),
            parent=tags.get("mlflow.parentRunId", ""),
            kubeflow=tags.get("kfp.run_id", ""),
            revision=tags.get("git.revision", ""),
            dirty={"True": True, "False": False}.get(tags.get("git.dirty", "")),
            params=tags.get("params.sha256", ""),
            used=_used(used, tags.get("data.digest"), stage),
            made=tags.get(MADE_TAGS.get(stage, "")),
            place=tags.get("workspace", ""),
        )


def _recorded_runs(target: TrackingTarget) -> Iterator[Any]:
    from pointloom.train.tracking import make_client

    file = target.uri.removeprefix("sqlite:///")
    if file != target.uri and not Path(file).is_file():
        return  # a client would make it
    client, page = make_client(target.uri), None
    try:
        if target.experiment_id:
            experiment = client.get_experiment(target.experiment_id)
        else:
            experiment = client.get_experiment_by_name(target.experiment)
        while experiment and (page is None or page.token):
            page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=page and page.token)
            yield from page
    except Exception as error:  # whatever an MLflow version raises
        text = f"MLflow at {target.uri} does not answer: {str(error).splitlines()[0]}"
        raise WorkspaceError(without_login(text, target.uri)) from None


def step_runs(folder: Path) -> Iterator[Run]:
    """Read what stages told Kubeflow Pipelines: the ``executor_output.json`` files below a folder of artefacts.

    Raises:
        WorkspaceError: There are none.
    """
    files = sorted(folder.rglob("executor_output.json"))
    if not files:
        raise WorkspaceError(
            f"{folder.resolve()} is no workspace and has no executor_output.json of pipeline steps in it; give one: "
            "--in FOLDER"
        )
    for file in files:
        listed = json.loads(file.read_text(encoding="utf-8")).get("artifacts", {})
        artifacts = [each for value in listed.values() for each in value["artifacts"]]
        found = {key: value for each in artifacts for key, value in each.get("metadata", {}).items()}
        if "stage" not in found:
            continue
        yield Run(
            stage=str(found["stage"]),
            name=str(found.get("entry", "")),
            mlflow=str(found.get("mlflow_run_id", "")),
            kubeflow=str(found.get("kfp_run_id", "")),
            revision=str(found.get("git_revision", "")),
            params=str(found.get("params_sha256", "")),
            used=_used(
                {key.removeprefix("input_"): str(found[key]) for key in found if key.startswith("input_")},
                found.get("data_digest"),
                str(found["stage"]),
            ),
            made=found.get("digest", found.get("checkpoint_sha256")),
            outputs=tuple(str(each["uri"]) for each in artifacts),
            place=str(file.parent),
        )


def _used(digests: Mapping[str, str] | None, data: str | None, stage: str) -> dict[str, str]:
    """Return the inputs of a run; older records know the prepared store alone."""
    if digests or not data or stage == "prepare":
        return dict(digests or {})
    return {"dataset": data}


def merged(runs: Iterable[Run]) -> list[Run]:
    """Join what different places say about the same run, oldest first; what the first one knows is kept."""
    found: dict[tuple[str, ...], Run] = {}
    for run in runs:
        key = (run.mlflow,) if run.mlflow else (run.label, run.started, run.place)
        known = found.get(key)
        found[key] = _joined(known, run) if known else run
    return sorted(found.values(), key=lambda run: run.started)


def _joined(first: Run, second: Run) -> Run:
    empty: tuple[Any, ...] = ("", None, {}, ())
    lacking = [name for name, value in vars(first).items() if value in empty]
    return replace(first, **{name: getattr(second, name) for name in lacking})
