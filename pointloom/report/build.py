"""Put the report together: numbers first, then pictures and figures, then the three files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pointloom.report import charts, classes, gallery, lineage, notes, retrieval, sentences, summary
from pointloom.report.ablation import ablation_content, ablation_headline
from pointloom.report.album import Album
from pointloom.report.embedding import embed
from pointloom.report.findings import multimodal_headline
from pointloom.report.guesses import guesses
from pointloom.report.inputs import ReportInputs
from pointloom.report.multimodal import multimodal_content
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.page import render_html, render_markdown
from pointloom.report.pictures import Pictures
from pointloom.report.published import published_rows
from pointloom.report.tasks import task_rows
from pointloom.report.viewer import viewer_entries

Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the report shows; nothing here is chosen by a score.

    Attributes:
        title: Heading.
        baseline: Fine-tuning result that differences are taken against.
        probe_baseline: Probe result that differences are taken against.
        baselines: Fine-tuning result -> the one it is compared with instead.
        probe_baselines: Probe result -> the one it is compared with instead.
        detail: Results shown class by class, as t-SNE and with retrieval.
        bootstrap: How intervals are made.
        seed: Seed of every choice of objects and of t-SNE.
        tsne_objects: Largest number of objects in t-SNE and retrieval.
        queries: Number of retrieval queries.
        viewer_objects: Number of objects in the 3D view.
        thumbnail_size: Pixels per object.
        ablation: Table of a paper and the results of its rows, None without one.
    """

    title: str
    baseline: str
    probe_baseline: str
    detail: list[str]
    bootstrap: BootstrapSettings
    seed: int
    tsne_objects: int
    queries: int
    viewer_objects: int
    thumbnail_size: int
    ablation: Content | None = None
    baselines: Mapping[str, str] = field(default_factory=dict)
    probe_baselines: Mapping[str, str] = field(default_factory=dict)


def build_report(inputs: ReportInputs, folder: Path, settings: ReportSettings) -> Content:
    """Write ``report.html``, ``report.md``, ``report.json`` and ``thumbnails/``; return the content of the JSON.

    Args:
        inputs: Everything the earlier stages left behind.
        folder: Empty folder to fill.
        settings: What to show.
    """
    album = Album(folder=folder, size=settings.thumbnail_size)
    pictures = Pictures(inputs.store, inputs.families.any_views(), album)
    content = _numbers(inputs, settings)
    figures = _figures(inputs, content) | _pictures(inputs, content, pictures, settings)
    content["multimodal"] = multimodal_content(
        inputs,
        pictures,
        limit=settings.tsne_objects,
        count=settings.queries,
        seed=settings.seed,
        bootstrap=settings.bootstrap,
    )
    if content["multimodal"]:
        content["headline"] = multimodal_headline(content)
    if content["ablation"]:
        content["headline"] = ablation_headline(content["ablation"])
    content["notes"] = notes.reading_notes(content)
    content["problems"] = inputs.problems
    viewer = viewer_entries(inputs, count=settings.viewer_objects, seed=settings.seed, detail=settings.detail)
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render_html(content, figures, viewer, album), encoding="utf-8")
    (folder / "report.md").write_text(render_markdown(content), encoding="utf-8")
    return content


def _numbers(inputs: ReportInputs, settings: ReportSettings) -> Content:
    """Return every table of the report."""
    bootstrap = settings.bootstrap
    tuned = summary.Baseline(settings.baseline, settings.baselines)
    frozen = summary.Baseline(settings.probe_baseline, settings.probe_baselines)
    finetune = summary.finetune_rows(inputs, baseline=tuned, bootstrap=bootstrap)
    probe = summary.probe_rows(inputs, baseline=frozen, bootstrap=bootstrap)
    comparisons = summary.comparison_rows(inputs, bootstrap=bootstrap)
    low_label = summary.low_label_rows(inputs, baseline=tuned, bootstrap=bootstrap)
    for row in [*finetune, *low_label, *probe]:
        row["description"] = sentences.describe(row)
    outcomes = classes.detailed_outcomes(inputs, settings.detail)
    names = inputs.store.info.classes
    measured = [row for row in [*probe, *finetune] if row["standard_error"] is not None]
    return {
        "format": 1,
        "title": settings.title,
        "dataset": lineage.dataset_facts(inputs),
        "headline": sentences.headline(finetune=finetune, comparisons=comparisons, probe=probe, low_label=low_label),
        "num_test": measured[-1]["num_test"] if measured else None,
        "standard_error": measured[-1]["standard_error"] if measured else None,
        "standard_error_at": measured[-1]["oa"]["mean"] if measured else None,
        "majority": classes.majority_share(inputs),
        "baseline": settings.baseline,
        "probe_baseline": settings.probe_baseline,
        "detail": settings.detail,
        "bootstrap": asdict(bootstrap),
        "finetune": finetune,
        "published": published_rows(inputs),
        "tasks": task_rows(inputs),
        "ablation": ablation_content(inputs, settings.ablation, bootstrap=bootstrap),
        "comparisons": [] if settings.ablation else comparisons,
        "steps": [] if settings.ablation else summary.step_rows(inputs, bootstrap=bootstrap),
        "low_label": low_label,
        "probe": probe,
        "classes": classes.class_rows(inputs, outcomes) if outcomes else [],
        "confusion": classes.confusions(outcomes, len(names)),
        "worst": classes.worst_confusions(outcomes, names),
        "protocols": lineage.protocols(inputs),
        "stages": lineage.stage_rows(inputs),
        "bottleneck": lineage.bottleneck(lineage.stage_rows(inputs)),
        "encoders": lineage.encoder_rows(inputs),
        "versions": lineage.versions(inputs),
        "quarantine": lineage.quarantine_rows(inputs),
    }


def _figures(inputs: ReportInputs, content: Content) -> dict[str, str]:
    """Return the Plotly figures of the tables and curves by name."""
    figures = {}
    order = [row["name"] for row in content["finetune"]]
    if content["finetune"]:
        runs = {
            row["name"]: [
                run["oa"] for run in inputs.finetune[row["name"]].runs if run.get("fraction") == row["fraction"]
            ]
            for row in content["finetune"]
        }
        figures["accuracy"] = charts.accuracy_chart(content["finetune"], runs)
    if content["low_label"]:
        figures["low_label"] = charts.low_label_chart(content["low_label"], order)
    for method, figure in (("align", "align_loss"), ("distill", "distill_loss"), (None, "pretrain_loss")):
        curves = {
            name: encoder.curves
            for name, encoder in inputs.encoders.items()
            if "loss" in encoder.curves and encoder.step == method
        }
        if curves:
            figures[figure] = charts.loss_chart(curves, log=method is None)
    tuned = {name: inputs.finetune[name].curves for name in order if "loss" in inputs.finetune[name].curves}
    if tuned:
        figures["finetune_loss"] = charts.loss_chart(tuned)
    for name, counts in content["confusion"].items():
        figures[f"confusion/{name}"] = charts.confusion_chart(counts, content["dataset"]["classes"])
    return figures


def _pictures(inputs: ReportInputs, content: Content, pictures: Pictures, settings: ReportSettings) -> dict[str, str]:
    """Draw all thumbnails, add them and the retrieval scores to ``content``; return the t-SNE figures."""
    store, album = inputs.store, pictures.album
    content["inputs"] = gallery.input_strips(inputs, album, seed=settings.seed)
    content["reconstructions"] = {
        name: rows
        for name, encoder in inputs.encoders.items()
        if (rows := gallery.reconstructions(encoder, store, album))
    }
    content["guesses"] = {
        name: rows for name, encoder in inputs.encoders.items() if (rows := guesses(encoder, store, album))
    }
    content["features"], content["retrieval"], content["neighbors"] = {}, [], {}
    content["shown"] = "test" if len(store.rows("test")) >= retrieval.FEWEST else "prepared"
    figures = {}
    detail = [name for name in settings.detail if name in inputs.probe]
    for name in [*detail, *sorted(inputs.probe.keys() - set(detail))]:
        result = inputs.probe[name]
        found = retrieval.load_gallery(result, limit=settings.tsne_objects, seed=settings.seed)
        scores = retrieval.retrieval_scores(found) if found else None
        if scores:
            row = {"name": name, "model": result.encoder.get("builder", "?"), "trained": result.trained}
            content["retrieval"].append(row | {"labels": result.encoder.get("labels", "none")} | scores)
        if name not in detail or found is None:
            continue
        if path := gallery.feature_strip(result, album):
            content["features"][name] = path
        content["neighbors"][name] = gallery.neighbor_rows(found, pictures, count=settings.queries, seed=settings.seed)
        titles, hover = gallery.titles_and_hover(store, found.uid)
        figures[f"tsne/{name}"] = charts.embedding_chart(embed(found, seed=settings.seed), titles, hover)
    return figures
