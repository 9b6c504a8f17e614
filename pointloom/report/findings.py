"""The findings at the top of a report with aligned encoders: fewer per encoder, because there are more encoders."""

from collections.abc import Sequence
from typing import Any

from pointloom.report.sentences import format_spread, headline, judge, protocol_title

Row = dict[str, Any]


def multimodal_headline(content: Row) -> list[str]:
    """Return the findings: words first, then the linear SVM, fine-tuning against the longest control, fewest labels.

    Everything that is left out here is in the tables.

    Args:
        content: Tables of the report with its multimodal part.
    """
    fractions = {row["fraction"] for row in content["low_label"]}
    found = headline(
        finetune=content["finetune"],
        comparisons=_longest_controls(content["comparisons"]),
        probe=[row for row in content["probe"] if row["protocol"] == "svm"],
        low_label=[row for row in content["low_label"] if row["fraction"] in {min(fractions), max(fractions)}],
    )
    return [*_by_text(content["multimodal"]["classification"]), *found, *_steps(content["steps"])]


def _by_text(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for row in rows:
        if row["top1"] is None:
            continue
        interval = row["interval1"]
        bounds = f", {format_range(interval)}, {interval['verdict']}" if interval else ""
        sentences.append(
            f"{row['title'][0].upper()}{row['title'][1:]}: {row['name']} gives {format_spread(row['top1'])} % of "
            f"{row['num_test']} objects the right one of {row['num_classes']} classes "
            f"(chance {row['chance1']:.1f} %{bounds})."
        )
    return sentences


def format_range(interval: Row) -> str:
    """Return ``[52.1, 61.9]``."""
    return f"[{interval['low']:.1f}, {interval['high']:.1f}]"


def _steps(rows: Sequence[Row]) -> list[str]:
    """Return each step against the nearest step before it, in words."""
    sentences = []
    for row in rows:
        if row["difference"] and row["nearest"]:
            how = "fine-tuned" if row["table"] == "finetune" else f"frozen, {protocol_title(row['table'])}"
            sentences.append(f"{row['name']} against {row['other']}, {how}: {judge(row['difference'])}.")
    return sentences


def _longest_controls(rows: Sequence[Row]) -> list[Row]:
    """Return, per encoder, the comparison with the control of its architecture that was trained longest."""
    longest: dict[str, Row] = {}
    for row in rows:
        best = longest.get(row["name"])
        if row["same_architecture"] and (not best or (row["control_epochs"] or 0) > (best["control_epochs"] or 0)):
            longest[row["name"]] = row
    return list(longest.values())
