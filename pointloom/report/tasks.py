"""Results of the downstream tasks that are no plain classification: few-shot, part and semantic segmentation."""

from dataclasses import asdict
from typing import Any

from pointloom.report.inputs import ReportInputs, ResultRecord
from pointloom.report.statistics import spread

Row = dict[str, Any]

TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "few_shot": ("few-shot classification", {"oa": "accuracy", "oa_vote": "accuracy, voted"}),
    "part_segmentation": (
        "part segmentation",
        {"miou_instance": "instance mIoU", "miou_class": "class mIoU", "oa": "overall accuracy"},
    ),
    "semantic_segmentation": (
        "semantic segmentation of rooms",
        {"miou": "mIoU", "macc": "mean class accuracy", "oa": "overall accuracy"},
    ),
}
"""Task of a result -> its title, and its metrics with their titles."""


def task_rows(inputs: ReportInputs) -> list[Row]:
    """Return one row per result and metric, tasks in the order of ``TASKS``; mean and deviation over seeds or folds."""
    rows = []
    for task, (title, metrics) in TASKS.items():
        for result in inputs.finetune.values():
            if result.card.get("task") == task:
                rows += [_row(result, title, metric, name) for metric, name in metrics.items()]
    return [row for row in rows if row["value"] is not None]


def _row(result: ResultRecord, task: str, metric: str, metric_title: str) -> Row:
    found = spread([float(run[metric]) for run in result.runs if run.get(metric) is not None])
    return {
        "task": task,
        "setting": _setting(result),
        "name": result.name,
        "model": result.encoder.get("builder", "?"),
        "method": result.encoder.get("method", "?"),
        "labels": result.encoder.get("labels", "none"),
        "selection": result.protocol.get("selection"),
        "runs": len(result.runs),
        "metric": metric_title,
        "value": asdict(found) if found else None,
    }


def _setting(result: ResultRecord) -> str:
    """Return in words what else decides the numbers."""
    protocol = result.protocol
    if "way" in protocol:
        return f"{protocol['way']} way, {protocol['shot']} shot, folds: {protocol.get('folds', '?')}"
    if "test_areas" in protocol:
        return "random blocks of area " + ", ".join(str(area) for area in protocol["test_areas"])
    return f"{protocol.get('num_points', '?')} points, mean of {protocol.get('draws', '?')} draws"
