"""Published values of the standard benchmarks beside ours, and what differs between the protocols."""

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from pointloom.report.inputs import ReportInputs, ResultRecord
from pointloom.report.statistics import spread

Row = dict[str, Any]

METRICS = {
    "classification": ("oa", "oa_voting_max"),
    "few_shot": ("oa",),
    "svm": ("oa",),
    "part_segmentation": ("miou_class", "miou_instance"),
    "semantic_segmentation": ("macc", "miou"),
    "zero_shot": ("top1", "top5"),
}
"""Published metrics by task, named as in ``result.json``."""
TITLES = {
    "oa": "accuracy",
    "oa_voting_max": "accuracy, official voting",
    "miou_class": "class mIoU",
    "miou_instance": "instance mIoU",
    "macc": "mean class accuracy",
    "miou": "mIoU",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "ap25": "AP25",
    "ap50": "AP50",
    "overall": "accuracy of grounding",
    "unique": "accuracy of grounding, unique",
    "multiple": "accuracy of grounding, multiple",
}
PUBLISHED_SELECTION = "official"
"""All published fine-tuning takes the epoch that is best on the test split."""


@dataclass(frozen=True)
class Published:
    """One value of a paper.

    Attributes:
        dataset: As in ``prepare.source``.
        variant: As in ``prepare.variant`` where it changes the task, else empty.
        task: A key of ``METRICS``, or a task on scenes.
        transfer: ``full``, ``linear``, ``mlp3``, ``svm``, ``nearest``, ``frozen`` or ``none``.
        metric: A key of ``TITLES``.
        points: Points per cloud, None where it is not stated.
        votes: Draws per object.
        method: Name, with the backbone where there are several.
        value: Percent.
        std: Percent, None where none is given.
        seeds: What is known of the number of runs.
        source: Paper and table.
    """

    dataset: str
    variant: str
    task: str
    transfer: str
    metric: str
    points: int | None
    votes: int
    method: str
    value: float
    std: float | None
    seeds: str
    source: str


@lru_cache(maxsize=1)
def read_published() -> tuple[Published, ...]:
    """Return all published values."""
    text = (resources.files("pointloom") / "report" / "published.csv").read_text(encoding="utf-8")
    return tuple(_parse(row) for row in csv.DictReader(text.splitlines()))


def _parse(row: dict[str, Any]) -> Published:
    numbers = {
        "points": int(row["points"]) if row["points"] else None,
        "votes": int(row["votes"]),
        "value": float(row["value"]),
        "std": float(row["std"]) if row["std"] else None,
    }
    return Published(**(row | numbers))


def find_published(*, dataset: str, variant: str, task: str, transfer: str, metric: str) -> list[Published]:
    """Return the published values of one benchmark, protocol and metric.

    Args:
        dataset: As in ``prepare.source``.
        variant: As in ``prepare.variant``; a fold's number and layouts of the same data are ignored.
        task: As in ``Published``.
        transfer: As in ``Published``.
        metric: As in ``Published``.
    """
    wanted = (dataset, task, transfer, metric)
    return [
        p
        for p in read_published()
        if (p.dataset, p.task, p.transfer, p.metric) == wanted and p.variant in ("", variant.partition("/")[0])
    ]


def published_rows(inputs: ReportInputs) -> list[Row]:
    """Return our results on a standard benchmark, each with the published values; empty on any other data."""
    info = inputs.store.info
    variant = str(info.settings.get("variant", ""))
    rows = []
    for name, task, transfer, protocol, runs in _results(inputs):
        dataset = info.source
        if task == "few_shot" and dataset == "modelnet40":
            dataset, variant = "modelnet_fewshot", f"{protocol['way']}way_{protocol['shot']}shot"
        for metric in METRICS.get(task, ()):
            values = [float(run[metric]) for run in runs if run.get(metric) is not None]
            found = find_published(dataset=dataset, variant=variant, task=task, transfer=transfer, metric=metric)
            ours = spread(values)
            if ours is None or not found:
                continue
            rows.append(
                {
                    "name": name,
                    "benchmark": f"{dataset} {variant}".strip(),
                    "task": task,
                    "transfer": transfer,
                    "metric": TITLES[metric],
                    "ours": asdict(ours),
                    "published": [asdict(p) | {"differs": differences(p, protocol, ours.count)} for p in found],
                }
            )
    return rows


def differences(published: Published, protocol: Row, num_runs: int) -> list[str]:
    """Say in words what differs between a published protocol and ours: points, voting, selection, seeds, folds.

    Args:
        published: The published value.
        protocol: Of our result: ``num_points``, ``votes``, ``selection``, ``C`` and so on.
        num_runs: Of our result.
    """
    found = []
    points, votes = protocol.get("num_points"), protocol.get("votes")
    if points is not None and published.points is not None and points != published.points:
        found.append(f"points: {points} here, {published.points} published")
    if published.metric == "oa" and votes is not None and votes != published.votes:
        found.append(f"test draws: mean accuracy of {votes} random draws here, one farthest-point draw published")
    if published.metric == "oa_voting_max" and protocol.get("voting"):
        voting = protocol["voting"]
        if voting["draws"] != published.votes:
            found.append(f"voting: {voting['draws']} draws per pass here, {published.votes} published")
    selection = protocol.get("selection")
    if published.task != "svm" and selection is not None and selection != PUBLISHED_SELECTION:
        found.append(f"selection: {selection} epoch here, the epoch that is best on the test split published")
    if published.task == "svm" and (protocol.get("svm") or {}).get("protocol") != "official":
        found.append("SVM: C by cross-validation on standardised features here, a fixed C published")
    if published.task == "few_shot" and protocol.get("folds") not in (None, "the community's"):
        found.append("folds: of our own here, the community's published")
    named = protocol.get("classes_named")
    if published.task == "zero_shot" and named:
        found.append(f"not zero-shot here: {named} of {protocol['num_classes']} class names were in training captions")
    if not published.seeds.startswith(str(num_runs)):
        found.append(f"runs: mean of {num_runs} here, {published.seeds} published")
    return found


def _results(inputs: ReportInputs) -> Iterator[tuple[str, str, str, Row, list[Row]]]:
    """Yield name, task, transfer, protocol and runs of every result that papers report."""
    for name, result in sorted(inputs.finetune.items()):
        runs = [run for run in result.runs if run.get("fraction", 1) == 1]
        yield name, str(result.card.get("task", "classification")), _transfer(result), result.protocol, runs
    for name, result in sorted(inputs.probe.items()):
        runs = [run for run in result.runs if run.get("protocol") == "svm"]
        yield f"{name} (frozen)", "svm", "svm", result.protocol, runs
        named = [
            run for run in result.runs if run.get("num_classes") == len(result.card.get("data", {}).get("classes", []))
        ]
        if named:
            protocol = {"num_points": result.protocol.get("num_points"), **named[0]}
            yield f"{name} (by text)", "zero_shot", "none", protocol, named


def _transfer(result: ResultRecord) -> str:
    transfer = result.protocol.get("transfer")
    if not transfer or transfer.get("freeze", "none") == "none":
        return "full"
    return {"mlp_linear": "linear", "linear": "linear"}.get(str(result.protocol.get("head")), "mlp3")
