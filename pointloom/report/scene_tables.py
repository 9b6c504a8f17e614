"""Tables about scenes: scores over seeds, and paired differences to a baseline."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float

from pointloom.report.inputs import ResultRecord, SceneInputs
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.statistics import Difference, spread
from pointloom.report.summary import Baseline
from pointloom.tasks.detection_scores import THRESHOLDS, MatchedBoxes, TrueBoxes, resampled_map

Row = dict[str, Any]

PROTOCOLS: dict[str, tuple[str, dict[str, str]]] = {
    "scene_segmentation": (
        "Semantic segmentation, trained end to end",
        {"miou": "mIoU", "macc": "mean class accuracy", "oa": "overall accuracy"},
    ),
    "detection": ("Detection", {"ap25": "AP25", "ap50": "AP50", "ar25": "AR25", "ar50": "AR50"}),
    "linear": (
        "Frozen features, linear layer",
        {"miou": "mIoU", "macc": "mean class accuracy", "oa": "overall accuracy"},
    ),
    "nearest": (
        "Frozen features, nearest super-point",
        {"miou": "mIoU", "macc": "mean class accuracy", "oa": "overall accuracy"},
    ),
    "instances": ("Frozen features, instances", {"ap50": "AP50", "ap25": "AP25", "ap": "AP"}),
    "grounding": (
        "Frozen features, grounding",
        {"overall": "accuracy", "unique": "unique", "multiple": "multiple", "chance": "by chance"},
    ),
}
"""Task, or protocol of a probe -> its title, and its metrics with their titles, the main one first."""

END_TO_END = ("scene_segmentation", "detection")


def scene_rows(inputs: SceneInputs, *, tuned: Baseline, frozen: Baseline, bootstrap: BootstrapSettings) -> list[Row]:
    """Return a row per result, protocol and share of labels; protocols as in ``PROTOCOLS``, random weights first."""
    rows = []
    for protocol in PROTOCOLS:
        for results, baseline in ((inputs.finetune, tuned), (inputs.probe, frozen)):
            for result in results.values():
                base = results.get(baseline.of(result) or result.name)
                for fraction in _fractions(result, protocol):
                    rows.append(_row(result, protocol, fraction, base, bootstrap))
    order = list(PROTOCOLS)
    return sorted(rows, key=lambda row: (order.index(row["protocol"]), -row["fraction"], row["trained"]))


def _places(result: ResultRecord, protocol: str, fraction: float) -> dict[int, int]:
    """Return seed -> place among the runs of a result."""
    task = result.card.get("task")
    return {
        int(run["seed"]): place
        for place, run in enumerate(result.runs)
        if run.get("protocol", task) == protocol and float(run.get("fraction", 1.0)) == fraction
    }


def _fractions(result: ResultRecord, protocol: str) -> list[float]:
    task = result.card.get("task")
    found = {float(run.get("fraction", 1.0)) for run in result.runs if run.get("protocol", task) == protocol}
    return sorted(found, reverse=True)


def _row(
    result: ResultRecord, protocol: str, fraction: float, base: ResultRecord | None, bootstrap: BootstrapSettings
) -> Row:
    title, metrics = PROTOCOLS[protocol]
    places = _places(result, protocol, fraction)
    runs = [result.runs[place] for place in places.values()]
    values = {}
    for metric in metrics:
        found = spread([float(run[metric]) for run in runs if run.get(metric) is not None])
        values[metric] = asdict(found) if found else None
    difference = None
    if base is not None and base is not result:
        difference = paired_difference_of(result, base, protocol, fraction, bootstrap=bootstrap)
    return {
        "protocol": protocol,
        "title": title,
        "metrics": metrics,
        "name": result.name,
        "model": result.encoder.get("builder", "?"),
        "method": result.encoder.get("method", "?"),
        "labels": result.encoder.get("labels", "none"),
        "trained": result.trained,
        "detector": result.protocol.get("detector"),
        "test": result.protocol.get("test"),
        "fraction": fraction,
        "epochs": runs[0].get("epochs"),
        "labelled_points": result.protocol.get("labelled_points"),
        "seeds": len(runs),
        "values": values,
        "difference": asdict(difference) | {"verdict": difference.verdict} if difference else None,
        "baseline": base.name if base else None,
        "is_baseline": base is result,
        "classes": _class_spreads(runs),
    }


def _class_spreads(runs: list[Row]) -> dict[str, Row]:
    """Return mean and deviation of every class's score over the runs that have one; of several scores the first."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in (run.get("classes") or {}).items():
            score = next(iter(value.values()), None) if isinstance(value, dict) else value
            if score is not None:
                found.setdefault(name, []).append(float(score))
    return {name: asdict(over) for name, values in found.items() if (over := spread(values))}


def paired_difference_of(
    first: ResultRecord, second: ResultRecord, protocol: str, fraction: float, *, bootstrap: BootstrapSettings
) -> Difference | None:
    """Return the paired difference of the main metric over shared seeds, and over test scenes where they are kept.

    Args:
        first: A result.
        second: What it is compared with.
        protocol: A key of ``PROTOCOLS``.
        fraction: Share of the labels.
        bootstrap: How intervals are made.
    """
    places = [_places(result, protocol, fraction) for result in (first, second)]
    seeds = sorted(places[0].keys() & places[1].keys())
    if not seeds:
        return None
    counts = [
        result.predictions["confusion"][[place[seed] for seed in seeds]]
        for result, place in zip((first, second), places, strict=True)
        if "confusion" in result.predictions
    ]
    if len(counts) == 2 and counts[0].shape == counts[1].shape and counts[0].any() and counts[1].any():
        return miou_difference(*counts, bootstrap=bootstrap)
    if _same_true_boxes(first, second):
        return ap_difference(first, second, seeds, fraction, bootstrap=bootstrap)
    metric = next(iter(PROTOCOLS[protocol][1]))
    values = [
        [result.runs[place[seed]].get(metric) for seed in seeds]
        for result, place in zip((first, second), places, strict=True)
    ]
    if any(value is None for row in values for value in row):
        return None
    return seed_difference(np.subtract(*np.array(values, dtype=np.float64)), confidence=bootstrap.confidence)


def miou_difference(
    first: Float[np.ndarray, "s r c c"], second: Float[np.ndarray, "s r c c"], *, bootstrap: BootstrapSettings
) -> Difference:
    """Bootstrap the difference of two mean IoUs over test scenes and seeds.

    Args:
        first: Points per true class (rows) and predicted class, of every seed and test scene.
        second: The same of the other system, same seeds and scenes.
        bootstrap: Resamples, coverage, seed.
    """

    def gains(weight: Float[np.ndarray, "b r"]) -> Float[np.ndarray, "b s"]:
        return _miou(weight, first) - _miou(weight, second)

    return _resampled(gains, num_seeds=first.shape[0], num_scenes=first.shape[1], bootstrap=bootstrap)


def ap_difference(
    first: ResultRecord, second: ResultRecord, seeds: list[int], fraction: float, *, bootstrap: BootstrapSettings
) -> Difference:
    """Bootstrap the difference of two AP25 over test scenes and seeds.

    Args:
        first: Detection with its boxes.
        second: The same of the other system, same test scenes.
        seeds: Of the runs that both have.
        fraction: Share of the labels.
        bootstrap: Resamples, coverage, seed.
    """
    arrays = first.predictions
    truth = TrueBoxes(arrays["true_boxes"], arrays["true_label"], arrays["true_scene"])
    scenes = np.unique(np.concatenate([truth.scene, arrays["scene"], second.predictions["scene"]]))

    def gains(weight: Float[np.ndarray, "b r"]) -> Float[np.ndarray, "b s"]:
        scores = [
            resampled_map(_found(result, seed, fraction), truth, scenes=scenes, weight=weight, threshold=THRESHOLDS[0])
            for result in (first, second)
            for seed in seeds
        ]
        return np.stack(scores[: len(seeds)], axis=1) - np.stack(scores[len(seeds) :], axis=1)

    return _resampled(gains, num_seeds=len(seeds), num_scenes=len(scenes), bootstrap=bootstrap)


def _same_true_boxes(first: ResultRecord, second: ResultRecord) -> bool:
    """Tell whether two results keep their boxes' matches and were tested on the same true ones."""
    if any("overlap" not in result.predictions for result in (first, second)):
        return False
    one, other = (result.predictions["true_boxes"] for result in (first, second))
    return len(one) > 0 and np.array_equal(one, other)


def _found(result: ResultRecord, seed: int, fraction: float) -> MatchedBoxes:
    arrays = result.predictions
    own = (arrays["seed"] == seed) & (arrays["fraction"] == fraction)
    return MatchedBoxes(**{name: arrays[name][own] for name in ("score", "scene", "overlap", "partner")})


def _resampled(
    gains: Callable[[Float[np.ndarray, "b r"]], Float[np.ndarray, "b s"]],
    *,
    num_seeds: int,
    num_scenes: int,
    bootstrap: BootstrapSettings,
) -> Difference:
    """Return the mean difference and its percentile interval; ``gains`` has those of every drawing of scenes."""
    rng = np.random.default_rng(bootstrap.seed)
    scenes = rng.multinomial(num_scenes, np.full(num_scenes, 1 / num_scenes), size=bootstrap.resamples)
    seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=bootstrap.resamples) / num_seeds
    gain = gains(np.concatenate([np.ones((1, num_scenes)), scenes]))
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile((gain[1:] * seeds).sum(1), [tail, 1 - tail])
    return Difference(
        float(gain[0].mean()), float(low), float(high), seeds=num_seeds, objects=num_scenes, groups=num_scenes
    )


def _miou(weight: Float[np.ndarray, "b r"], counts: Float[np.ndarray, "s r c c"]) -> Float[np.ndarray, "b s"]:
    """Return the mean IoU over all classes of every seed, for scenes that occur ``weight`` times."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    union = counts.sum(-1) + counts.sum(-2) - right
    inside, whole = (np.tensordot(weight, part, (1, 1)) for part in (right, union))
    found: Float[np.ndarray, "b s"] = 100 * (inside / np.maximum(whole, 1)).mean(axis=-1)
    return found


def seed_difference(gain: Float[np.ndarray, " s"], *, confidence: float) -> Difference | None:
    """Return mean and Student's interval of paired differences over seeds; None for a single seed."""
    from scipy.stats import t

    if len(gain) < 2:
        return None
    half = float(t.ppf(0.5 + confidence / 2, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
    mean = float(gain.mean())
    return Difference(mean, mean - half, mean + half, seeds=len(gain), objects=0, groups=0)


def scene_headline(rows: list[Row]) -> list[str]:
    """Return a sentence per pre-trained row; of frozen features, only for the largest share of the labels.

    A difference whose interval holds 0 is not called a gain.
    """
    from pointloom.report.sentences import count, format_spread, judge

    found = []
    largest = {row["protocol"]: max(r["fraction"] for r in rows if r["protocol"] == row["protocol"]) for row in rows}
    for row in rows:
        told = row["protocol"] in END_TO_END or row["fraction"] == largest[row["protocol"]]
        if row["trained"] and row["difference"] and told:
            metric, title = next(iter(row["metrics"].items()))
            share = "" if row["fraction"] == 1 else f", {100 * row['fraction']:g} % of the labelled scenes"
            found.append(
                f"{row['title']}{share}: {row['name']} ({row['method']}) reaches {title} "
                f"{format_spread(row['values'][metric])} ({count(row['seeds'], 'seed')}); against {row['baseline']} "
                f"{judge(row['difference'])}."
            )
    return found
