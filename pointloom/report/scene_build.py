"""The report on scenes: tables, pictures, costs and lineage, in three files."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pointloom.report import charts, lineage
from pointloom.report.ablation import ablation_headline
from pointloom.report.album import Album
from pointloom.report.build import ReportSettings
from pointloom.report.inputs import SceneInputs
from pointloom.report.page import read_resource, script_safe, template_environment
from pointloom.report.scene_ablation import scene_ablation_content
from pointloom.report.scene_notes import MEASURES, SCORES_OF_CLASSES, collapse_notes, scene_notes
from pointloom.report.scene_published import scene_published_rows
from pointloom.report.scene_tables import scene_headline, scene_rows
from pointloom.report.scenes import scene_blocks, scene_entries
from pointloom.report.summary import Baseline

Content = dict[str, Any]


def build_scene_report(inputs: SceneInputs, folder: Path, settings: ReportSettings) -> Content:
    """Write ``report.html``, ``report.md``, ``report.json`` and ``thumbnails/``; return the content of the JSON.

    Args:
        inputs: Everything the earlier stages left behind.
        folder: Empty folder to fill.
        settings: What to show.
    """
    album = Album(folder=folder, size=settings.thumbnail_size)
    rows = scene_rows(
        inputs,
        tuned=Baseline(settings.baseline, settings.baselines),
        frozen=Baseline(settings.probe_baseline, settings.probe_baselines),
        bootstrap=settings.bootstrap,
    )
    ablation = scene_ablation_content(inputs, settings.ablation, bootstrap=settings.bootstrap)
    content: Content = {
        "format": 1,
        "title": settings.title,
        "dataset": _dataset(inputs),
        "headline": ablation_headline(ablation) if ablation else scene_headline(rows),
        "ablation": ablation,
        "rows": rows,
        "published": scene_published_rows(inputs, rows),
        "scenes": scene_blocks(inputs, album),
        "bootstrap": asdict(settings.bootstrap),
        "measures": {row["protocol"]: MEASURES[row["protocol"]] for row in rows},
        "scores_of_classes": {row["protocol"]: SCORES_OF_CLASSES.get(row["protocol"], "IoU") for row in rows},
        "protocols": lineage.protocols(inputs),
        "stages": lineage.stage_rows(inputs),
        "bottleneck": lineage.bottleneck(lineage.stage_rows(inputs)),
        "encoders": lineage.encoder_rows(inputs),
        "versions": lineage.versions(inputs),
        "quarantine": lineage.quarantine_rows(inputs),
        "problems": inputs.problems,
    }
    content["notes"] = scene_notes(
        rows,
        [result.protocol for results in (inputs.finetune, inputs.probe) for result in results.values() if result.runs],
        bootstrap=content["bootstrap"],
        num_test=content["dataset"]["splits"]["test"],
    ) + collapse_notes({name: record.curves for name, record in inputs.encoders.items()})
    figures = {}
    for name, records in (("pretrain_loss", inputs.encoders), ("finetune_loss", inputs.finetune)):
        curves = {key: record.curves for key, record in records.items() if "loss" in record.curves}
        if curves:
            figures[name] = charts.loss_chart(curves)
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.html").write_text(_html(content, figures, scene_entries(inputs), album), encoding="utf-8")
    markdown = template_environment(autoescape=False).get_template("scene_report.md.j2").render(content=content)
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    return content


def _dataset(inputs: SceneInputs) -> Content:
    store, info = inputs.store, inputs.store.info
    return {
        "source": info.source,
        "digest": info.digest,
        "num_scenes": len(store),
        "num_points": int(store.num_points.sum()),
        "classes": list(info.classes),
        "box_classes": list(info.box_classes),
        "aligned": info.aligned,
        "splits": {split: len(store.rows(split)) for split in ("train", "test", "pretrain")},
        "counts": dict(info.counts),
        "quarantined": info.quarantined,
        "notes": list(info.notes),
        "settings": dict(info.settings),
    }


def _html(content: Content, figures: dict[str, str], viewer: list[Content], album: Album) -> str:
    from plotly.offline import get_plotlyjs

    spent = [row["cpu_s"] for row in content["stages"] if row["cpu_s"] is not None]
    sections = [
        *([("ablation", "Ablation")] if content["ablation"] else []),
        ("results", "Results"),
        *([("reading", "How to read this")] if content["notes"] else []),
        *([("classes", "Per class")] if content["rows"] else []),
        *([("published", "Published values")] if content["published"] else []),
        *([("scenes", "Scenes")] if content["scenes"] else []),
        ("curves", "Training curves"),
        ("quarantine", "Quarantined inputs"),
        ("lineage", "Cost and lineage"),
    ]
    environment = template_environment(autoescape=True)
    environment.filters["data_uri"] = album.data_uri
    return environment.get_template("scene_report.html.j2").render(
        content=content,
        sections=sections,
        total_cpu=sum(spent) if spent else None,
        figures={name: script_safe(figure) for name, figure in figures.items()},
        scene_viewer=viewer,
        scene_viewer_json=script_safe(json.dumps(viewer)),
        style=read_resource("report.css"),
        script=read_resource("report.js") + (read_resource("scenes.js") if viewer else ""),
        plotly=get_plotlyjs() if figures or viewer else "",
    )
