"""Per-class accuracy and confusion matrices of the results named in ``detail``."""

from typing import Any

import numpy as np

from pointloom.report.inputs import ReportInputs
from pointloom.report.outcomes import Outcomes, class_accuracy, confusion_matrix, select_outcomes


def detailed_outcomes(inputs: ReportInputs, names: list[str]) -> dict[str, Outcomes]:
    """Return the predictions of the named fine-tuning results at their largest training fraction."""
    found = {}
    for name in names:
        result = inputs.finetune.get(name)
        fractions = [float(run["fraction"]) for run in result.runs if "fraction" in run] if result else []
        outcomes = select_outcomes(result, max(fractions)) if result and fractions else None
        if outcomes is not None:
            found[name] = outcomes
    return found


def class_rows(inputs: ReportInputs, outcomes: dict[str, Outcomes]) -> list[dict[str, Any]]:
    """Return one row per class: objects to train and test on, and accuracy in percent per result."""
    store = inputs.store
    classes = store.info.classes
    accuracy = {name: class_accuracy(found, len(classes)) for name, found in outcomes.items()}
    counts = {split: np.bincount(_labels(inputs, split), minlength=len(classes)) for split in ("train", "test")}
    return [
        {
            "class": title,
            "num_train": int(counts["train"][label]),
            "num_test": int(counts["test"][label]),
            "accuracy": {
                name: None if np.isnan(values[label]) else float(values[label]) for name, values in accuracy.items()
            },
        }
        for label, title in enumerate(classes)
    ]


def confusions(outcomes: dict[str, Outcomes], num_classes: int) -> dict[str, list[list[float]]]:
    """Return the (true, predicted) counts per result, averaged over seeds."""
    return {name: confusion_matrix(found, num_classes).round(4).tolist() for name, found in outcomes.items()}


def worst_confusions(
    outcomes: dict[str, Outcomes], classes: tuple[str, ...], *, limit: int = 6
) -> dict[str, list[dict[str, Any]]]:
    """Return the most frequent wrong answers per result, averaged over seeds."""
    table = {}
    for name, found in outcomes.items():
        matrix = confusion_matrix(found, len(classes))
        np.fill_diagonal(matrix, 0)
        order = np.argsort(-matrix, axis=None, kind="stable")[:limit]
        cells = [(int(cell) // len(classes), int(cell) % len(classes)) for cell in order]
        table[name] = [
            {"true": classes[true], "predicted": classes[predicted], "count": float(matrix[true, predicted])}
            for true, predicted in cells
            if matrix[true, predicted] > 0
        ]
    return table


def majority_share(inputs: ReportInputs) -> float | None:
    """Return the accuracy in percent of always answering the most frequent training class, None without labels."""
    train, test = _labels(inputs, "train"), _labels(inputs, "test")
    if not len(train) or not len(test):
        return None
    return float(100 * np.mean(test == np.bincount(train).argmax()))


def _labels(inputs: ReportInputs, split: str) -> np.ndarray:
    labels = inputs.store.labels[inputs.store.rows(split)]
    return np.asarray(labels[labels >= 0])
