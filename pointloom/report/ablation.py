"""An ablation table of a paper: its rows, the published values and what the same changes do here."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from pointloom.report.inputs import Records, ReportInputs, ResultRecord
from pointloom.report.outcomes import BootstrapSettings, Outcomes, compare, select_outcomes
from pointloom.report.sentences import count, format_difference, format_signed, format_spread
from pointloom.report.statistics import spread

Row = dict[str, Any]
TITLES = {
    "svm": "linear SVM",
    "finetune": "fine-tuned",
    "linear": "linear layer, mIoU",
    "nearest": "nearest super-point, mIoU",
}
UNTRAINED = "no pre-training (not in the paper)"


def ablation_content(inputs: ReportInputs, table: Row | None, *, bootstrap: BootstrapSettings) -> Row | None:
    """Return the table with our values beside the published ones, None where there is no table.

    Args:
        inputs: Everything the earlier stages left behind.
        table: Parameters of the table (``report.ablation``).
        bootstrap: How intervals are made.
    """
    if table is None:
        return None
    return filled_table(table, partial(_measured, inputs, bootstrap=bootstrap), model=encoder_builder(inputs, table))


def filled_table(table: Row, measured: Callable[[Row, Row, str], Row], *, model: str | None) -> Row:
    """Return a table with a row of random weights and with what every row measured.

    Args:
        table: Parameters of the table (``report.ablation``).
        measured: From a row, the row of the full method and a measure to ``score`` and ``difference`` to the latter.
        model: Builder of the full method's encoder, None where it is not there yet.
    """
    full = next(row for row in table["rows"] if row["is_full"])
    blank: Row = {"cells": [UNTRAINED, *[""] * (len(table["columns"]) - 1)], "entries": [table["untrained"]]}
    blank |= {"published": [], "not_built": None, "is_full": False}
    rows = []
    for row in [*table["rows"], blank]:
        gaps = [value - best for value, best in zip(row["published"], full["published"], strict=False)]
        ours = {measure: measured(row, full, measure) for measure in table["measured"]}
        rows.append(row | {"published_difference": None if row["is_full"] else gaps, "ours": ours})
    seeds = max((len(row["entries"]) for row in table["rows"]), default=0)
    return table | {"rows": rows, "seeds": seeds, "model": model}


def _measured(inputs: ReportInputs, row: Row, full: Row, measure: str, *, bootstrap: BootstrapSettings) -> Row:
    """Return mean and spread over the seeds, and the paired difference to the full method."""
    values = _accuracies(inputs, row["entries"], measure)
    found = spread(values)
    difference = None
    if not row["is_full"]:
        first, second = (joined_outcomes(inputs, each["entries"], measure) for each in (row, full))
        difference = compare(first, second, store=inputs.store, bootstrap=bootstrap)
    return {"score": asdict(found) if found else None, "difference": difference}


def _accuracies(inputs: ReportInputs, entries: list[str], measure: str) -> list[float]:
    key, column = ("svm", "protocol") if measure == "svm" else (1.0, "fraction")
    runs = [run for result in _results(inputs, entries, measure) for run in result.runs]
    return [float(run["oa"]) for run in runs if run.get(column) == key and run.get("oa") is not None]


def joined_outcomes(inputs: ReportInputs, entries: list[str], measure: str) -> Outcomes | None:
    """Return the predictions of several entries as those of one, a row per seed; None without any.

    Args:
        inputs: Everything the earlier stages left behind.
        entries: Names of results, each with seeds of its own.
        measure: ``svm`` for the probe, ``finetune`` for fine-tuning with all labels.
    """
    key = "svm" if measure == "svm" else 1.0
    found = [select_outcomes(result, key) for result in _results(inputs, entries, measure)]
    parts = [part for part in found if part is not None]
    if not parts or any(not np.array_equal(part.uid, parts[0].uid) for part in parts):
        return None
    return Outcomes(
        uid=parts[0].uid,
        label=parts[0].label,
        prediction=np.concatenate([part.prediction for part in parts]),
        correct=np.concatenate([part.correct for part in parts]),
        seed=np.concatenate([part.seed for part in parts]),
    )


def _results(inputs: ReportInputs, entries: list[str], measure: str) -> list[ResultRecord]:
    results = inputs.probe if measure == "svm" else inputs.finetune
    return [results[name] for name in entries if name in results]


def encoder_builder(inputs: Records, table: Row) -> str | None:
    """Return the builder of the full method's encoder, None where there is no result of it."""
    full = next(row for row in table["rows"] if row["is_full"])
    found = [
        results[name] for results in (inputs.probe, inputs.finetune) for name in full["entries"] if name in results
    ]
    return str(found[0].encoder.get("builder", "?")) if found else None


def ablation_headline(ablation: Row) -> list[str]:
    """Return what each change did, in words; a difference whose interval holds 0 is never called a loss."""
    full = next(row for row in ablation["rows"] if row["is_full"])
    found = []
    for measure in ablation["measured"]:
        if full["ours"][measure]["score"]:
            value = f"{format_spread(full['ours'][measure]['score'])} % ({TITLES[measure]})"
            found.append(f"The full method reaches {value} with {count(ablation['seeds'], 'seed')} of pre-training.")
        for row in ablation["rows"]:
            if difference := row["ours"][measure]["difference"]:
                found.append(
                    f"{row_label(ablation, row)}, {TITLES[measure]}: {format_difference(difference)} points against "
                    f"the full method ({difference['verdict']})."
                )
    return found


def row_label(ablation: Row, row: Row) -> str:
    """Return the cells of a row with their headings, or alone where one of them says everything."""
    if len(ablation["columns"]) == 1 or row["cells"][0] == UNTRAINED:
        return str(row["cells"][0])
    return ", ".join(f"{column} {cell}" for column, cell in zip(ablation["columns"], row["cells"], strict=True))


def as_table(ablation: Row) -> str:
    """Return the table as lines for a terminal."""
    head = [*ablation["columns"], *(f"{name} (paper)" for name in ablation["benchmarks"])]
    for measure in ablation["measured"]:
        head += [f"here, {TITLES[measure]}", "difference to full"]
    lines = [head]
    for row in ablation["rows"]:
        published = published_cells(ablation, row)
        ours = []
        for value in row["ours"].values():
            verdict = f" {value['difference']['verdict']}" if value["difference"] else ""
            ours += [format_spread(value["score"]), format_difference(value["difference"]) + verdict]
        lines.append([*row["cells"], *published, *([f"not built: {row['not_built']}"] if row["not_built"] else ours)])
    columns = range(len(head))
    widths = [max(len(line[i]) for line in lines if i < len(line) and "not built" not in line[i]) for i in columns]
    return "\n".join("  ".join(cell.ljust(widths[i]) for i, cell in enumerate(line)).rstrip() for line in lines)


def published_cells(ablation: Row, row: Row) -> list[str]:
    """Return the published values as text, each with its difference to the full method's."""
    if not row["published"]:
        return ["–"] * len(ablation["benchmarks"])
    gaps = row["published_difference"] or [None] * len(row["published"])
    return [
        str(value) if gap is None else f"{value} ({format_signed(gap)})"
        for value, gap in zip(row["published"], gaps, strict=True)
    ]
