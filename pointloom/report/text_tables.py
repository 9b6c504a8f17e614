"""What aligned encoders can do with words: classification by text and recall, with chance beside every number."""

from dataclasses import asdict
from typing import Any

import numpy as np

from pointloom.report.inputs import ReportInputs, ResultRecord
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.statistics import paired_difference, spread

TITLES = {
    "seen": "text classification of seen classes",
    "held_out": "held-out classes (names in no training caption)",
}
UNNAMED = "trained classes whose names are in no training caption (captions without category words)"
CLASSIFICATION = ("top1", "top3", "top5", "macc")
RECALL = ("recall@1", "recall@5", "recall@10", "median_rank")

Row = dict[str, Any]


def text_classification_rows(inputs: ReportInputs, *, bootstrap: BootstrapSettings) -> list[Row]:
    """Return one row per set of classes and aligned encoder, seen classes first, with intervals over test objects."""
    rows = []
    for classes in TITLES:
        for result in inputs.align.values():
            runs = [run for run in _runs(result, "text_classification") if run.get("classes") == classes]
            if not runs:
                continue
            number = int(runs[0]["num_classes"])
            unnamed = classes == "seen" and result.protocol.get("category_words") is False
            row = _header(result) | {"classes": classes, "title": UNNAMED if unnamed else TITLES[classes]}
            row |= {"held_out": list(result.protocol.get("held_out", [])) if classes == "held_out" else []}
            row |= {"num_classes": number, "num_test": int(runs[0]["num_test"]), "seeds": len(runs)}
            row |= {key: _spread(runs, key) for key in CLASSIFICATION}
            for top in (1, 5):
                chance = min(1.0, top / number)
                row[f"chance{top}"] = 100 * chance
                row[f"interval{top}"] = None
                if chance < 1:
                    row[f"interval{top}"] = _interval(inputs, result, classes, top, chance=chance, bootstrap=bootstrap)
            rows.append(row)
    return rows


def recall_rows(inputs: ReportInputs) -> list[Row]:
    """Return one row per aligned encoder and kind of query: captions, or views through one image teacher."""
    rows = []
    for result in inputs.align.values():
        runs = _runs(result, "retrieval")
        for query in dict.fromkeys(str(run["query"]) for run in runs):
            own = [run for run in runs if run["query"] == query]
            row = _header(result) | {"query": query, "modality": own[0]["modality"], "seeds": len(own)}
            row |= {"queries": int(own[0]["queries"]), "gallery": int(own[0]["gallery"])}
            rows.append(row | {key: _spread(own, key) for key in RECALL})
    return rows


def _runs(result: ResultRecord, task: str) -> list[Row]:
    return [run for run in result.runs if run.get("task") == task]


def _header(result: ResultRecord) -> Row:
    encoder = result.encoder
    return {"name": result.name, "model": encoder.get("builder", "?"), "labels": encoder.get("labels", "none")}


def _spread(runs: list[Row], key: str) -> Row | None:
    found = spread([float(run[key]) for run in runs if run.get(key) is not None])
    return asdict(found) if found else None


def _interval(
    inputs: ReportInputs,
    result: ResultRecord,
    classes: str,
    top: int,
    *,
    chance: float,
    bootstrap: BootstrapSettings,
) -> Row | None:
    """Return the interval of an accuracy in percent and whether it is above chance; None without predictions."""
    arrays = result.predictions
    if not {"uid", "seed", "classes", f"hit{top}"} <= arrays.keys():
        return None
    hits = arrays[f"hit{top}"][arrays["classes"] == classes].astype(np.float64)
    judged = np.isfinite(hits).all(axis=0)
    if not hits.size or not judged.any():
        return None
    group_of = dict(zip(inputs.store.uids.tolist(), inputs.store.groups.tolist(), strict=True))
    above = paired_difference(
        hits[:, judged],
        np.full((len(hits), int(judged.sum())), chance),
        groups=np.array([group_of.get(uid) or uid for uid in arrays["uid"][judged].tolist()]),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )
    verdict = {"better": "above chance", "worse": "below chance"}.get(above.verdict, "no proven difference to chance")
    return {
        "mean": 100 * chance + above.mean,
        "low": max(100 * chance + above.low, 0.0),
        "high": min(100 * chance + above.high, 100.0),
        "objects": above.objects,
        "groups": above.groups,
        "verdict": verdict,
    }
