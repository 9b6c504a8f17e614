"""Stage ``report``: everything the earlier stages left behind as one HTML page, markdown and JSON."""

import logging
import shutil
from typing import Any

from pydantic import Field

from pointloom.stages.artifacts import DatasetIn, FamiliesIn, MetricsOut, ModelsIn, ResultIn, ResultOut
from pointloom.stages.params import StageParams
from pointloom.stages.report_ablation import AblationParams
from pointloom.stages.runs import stage_run
from pointloom.stages.scene_training import store_kind

logger = logging.getLogger(__name__)


class ReportParams(StageParams):
    """Parameters of the report; nothing it shows is chosen by a score.

    Attributes:
        title: Heading of the page.
        baseline: Entry of ``finetune`` that differences are taken against.
        probe_baseline: Entry of ``probe`` that differences are taken against.
        baselines: Entry of ``finetune`` -> the entry it is compared with instead, for another architecture.
        probe_baselines: The same for ``probe``.
        detail: Entries of ``finetune`` and ``probe`` shown class by class, as t-SNE and with retrieval.
        resamples: Bootstrap resamples per interval.
        confidence: Coverage of the intervals.
        seed: Seed of the intervals, of t-SNE and of the choice of shown objects.
        tsne_objects: Largest number of test objects in t-SNE and retrieval.
        queries: Retrieval queries shown.
        viewer_objects: Objects in the interactive 3D view.
        thumbnail_size: Width of one object's thumbnail in pixels.
        ablation: Table of a paper whose rows are entries of this workspace; `pointloom ablate` writes it.
    """

    title: str = Field(min_length=1)
    baseline: str
    probe_baseline: str
    baselines: dict[str, str] = Field(default_factory=dict)
    probe_baselines: dict[str, str] = Field(default_factory=dict)
    detail: list[str]
    resamples: int = Field(ge=100)
    confidence: float = Field(gt=0.5, lt=1)
    seed: int = Field(ge=0)
    tsne_objects: int = Field(ge=3)
    queries: int = Field(ge=0)
    viewer_objects: int = Field(ge=0)
    thumbnail_size: int = Field(ge=32, le=512)
    ablation: AblationParams | None = None


def report(
    params: ReportParams,
    *,
    dataset: DatasetIn,
    data: FamiliesIn,
    models: ModelsIn,
    results: ResultIn,
    runs: ResultIn,
    report: ResultOut,
    metrics: MetricsOut,
) -> None:
    """Write the benchmark report: tables with paired intervals, pictures, costs and lineage, in one HTML file.

    Args:
        params: What to compare and how much to show.
        dataset: Prepared store.
        data: Folder with ``views/``, ``captions/`` and ``features/``; they may be absent.
        models: Folder with one folder per encoder.
        results: Folder with ``finetune/`` and ``probe/``; may be absent for unlabelled data.
        runs: Folder with the metrics files of the earlier stages; may be absent.
        report: Folder to write; it appears only when it is complete.
        metrics: JSON file of headline numbers to write.

    Raises:
        DataError: The store is missing or damaged.
    """
    from pointloom.report.build import ReportSettings, build_report
    from pointloom.report.inputs import load_inputs, load_scene_inputs
    from pointloom.report.outcomes import BootstrapSettings
    from pointloom.report.scene_build import build_scene_report

    with stage_run("report", params=params, inputs={"dataset": dataset}, metrics=metrics) as run:
        values = params.model_dump(exclude={"resamples", "confidence"})
        bootstrap = BootstrapSettings(resamples=params.resamples, confidence=params.confidence, seed=params.seed)
        settings = ReportSettings(**values, bootstrap=bootstrap)
        places = {"dataset": dataset, "models": models, "results": results, "runs": runs}
        of_scenes = store_kind(dataset) == "scenes"
        partial = report.with_name(f".{report.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if of_scenes:
            content = build_scene_report(load_scene_inputs(**places), partial, settings)
        else:
            content = build_report(load_inputs(**places, data=data), partial, settings)
        shutil.rmtree(report, ignore_errors=True)
        partial.rename(report)
        for problem in content["problems"]:
            logger.warning("report: %s", problem)
        logger.info("report: %s", (report / "report.html").resolve())
        run.summary(scene_metrics(content) if of_scenes else headline_metrics(content))
        run.log_artifact(report / "report.html", folder="report")
        run.log_artifact(report / "report.json", folder="report")
        if (report / "thumbnails").is_dir():
            run.log_artifact(report / "thumbnails", folder="report/thumbnails")


def scene_metrics(content: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a report on scenes that DVC and MLflow compare between runs."""
    values: dict[str, float] = {"scenes": float(content["dataset"]["num_scenes"])}
    for row in content["rows"]:
        prefix = f"{row['protocol']}/{row['name']}/{100 * row['fraction']:g}"
        values |= {f"{prefix}/{key}": found["mean"] for key, found in row["values"].items() if found}
        if row["difference"] is not None:
            values |= {f"{prefix}/gain": row["difference"]["mean"], f"{prefix}/gain_low": row["difference"]["low"]}
    return values


def headline_metrics(content: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of the report that DVC and MLflow compare between runs."""
    values: dict[str, float] = {"objects": float(content["dataset"]["num_objects"])}
    tables = [("finetune", row, "") for row in content["finetune"]]
    tables += [("probe", row, f"/{row['protocol']}") for row in content["probe"]]
    for table, row, suffix in tables:
        prefix = f"{table}/{row['name']}{suffix}"
        for key in ("oa", "oa_vote"):
            if row[key] is not None:
                values[f"{prefix}/{key}"] = row[key]["mean"]
        if row["difference"] is not None:
            values |= {f"{prefix}/gain": row["difference"]["mean"], f"{prefix}/gain_low": row["difference"]["low"]}
    for row in (content["multimodal"] or {}).get("classification", []):
        for key in ("top1", "top5"):
            if row[key] is not None:
                values[f"align/{row['name']}/{row['classes']}/{key}"] = row[key]["mean"]
    return values
