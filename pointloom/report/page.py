"""Render the content of a report as one self-contained HTML file and as markdown."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pointloom.report.ablation import TITLES, published_cells
from pointloom.report.album import Album
from pointloom.report.sentences import (
    count,
    describe,
    format_difference,
    format_interval,
    format_seconds,
    format_signed,
    format_spread,
    protocol_title,
)

Content = dict[str, Any]


def render_html(content: Content, figures: Mapping[str, str], viewer: Sequence[Content], album: Album) -> str:
    """Return the page: styles, script, Plotly, figures and pictures inside, nothing to load.

    Args:
        content: The numbers and sentences, as in ``report.json``.
        figures: Plotly figures as JSON by name.
        viewer: Clouds of the 3D view.
        album: Pictures named in ``content``.
    """
    from plotly.offline import get_plotlyjs

    environment = template_environment(autoescape=True)
    environment.filters["data_uri"] = album.data_uri
    spent = [row["cpu_s"] for row in content["stages"] if row["cpu_s"] is not None]
    return environment.get_template("report.html.j2").render(
        content=content,
        sections=_sections(content),
        methods={row["name"]: row["method"] for row in content["encoders"]},
        total_cpu=sum(spent) if spent else None,
        tsne=[name.removeprefix("tsne/") for name in figures if name.startswith("tsne/")],
        figures={name: script_safe(figure) for name, figure in figures.items()},
        viewer=viewer,
        viewer_json=script_safe(json.dumps(viewer)),
        style=read_resource("report.css"),
        script=read_resource("report.js"),
        plotly=get_plotlyjs() if figures or viewer else "",
    )


def render_markdown(content: Content) -> str:
    """Return the tables, sentences and thumbnails as markdown; figures are in the HTML only."""
    return template_environment(autoescape=False).get_template("report.md.j2").render(content=content)


def _sections(content: Content) -> list[tuple[str, str]]:
    """Return anchors and titles of the table of contents."""
    labelled = [
        ("results", "Results"),
        ("reading", "How to read this"),
        ("low-label", "Low-label curves"),
        ("classes", "Per class"),
    ]
    more = content["multimodal"] or {}
    return [
        *([("ablation", "Ablation")] if content["ablation"] else []),
        *(labelled if content["dataset"]["labelled"] else [("reading", "How to read this")]),
        *([("tasks", "Other tasks")] if content["tasks"] else []),
        *([("published", "Published values")] if content["published"] else []),
        *([("text", "Words and shapes")] if more else []),
        *([("teachers", "Teachers and students")] if more.get("teachers") else []),
        ("curves", "Training curves"),
        ("reconstructions", "Reconstructions"),
        ("features", "Features"),
        ("retrieval", "Retrieval"),
        *([("views", "Views and captions")] if more.get("views") else []),
        ("view", "3D view"),
        ("inputs", "Inputs"),
        ("quarantine", "Quarantined inputs"),
        ("lineage", "Cost and lineage"),
    ]


def template_environment(*, autoescape: bool) -> Environment:
    """Return the environment of all templates: strict, with the formats of numbers as filters."""
    environment = Environment(
        loader=PackageLoader("pointloom", "report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "spread": format_spread,
        "difference": format_difference,
        "interval": format_interval,
        "signed": format_signed,
        "seconds": format_seconds,
        "protocol": protocol_title,
        "describe": describe,
        "count": count,
        "percent": _percent,
        "published": published_cells,
        "measure": TITLES.__getitem__,
        "cell": _markdown_cell,
    }
    return environment


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _markdown_cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def script_safe(text: str) -> str:
    """Escape what could end a script element."""
    return text.replace("<", "\\u003c")


def read_resource(name: str) -> str:
    """Return the text of a file that belongs to the report."""
    return (files("pointloom.report") / name).read_text(encoding="utf-8")
