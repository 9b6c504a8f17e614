"""Right and wrong answers per seed and test object, and their paired comparison between two results."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointloom.data.shards import ObjectStore
from pointloom.report.inputs import ResultRecord
from pointloom.report.statistics import paired_difference

Key = float | str
MIN_EPISODES = 5


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are made.

    Attributes:
        resamples: Number of bootstrap resamples.
        confidence: Coverage, for example 0.95.
        seed: Seed of the resampling.
    """

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Outcomes:
    """Predictions of one result at one training fraction or for one probe protocol.

    Attributes:
        uid: (T,) test objects.
        label: (T,) true classes.
        prediction: (S, T) predicted classes, one row per seed.
        correct: (S, T) share of the point draws in which the prediction is right; 0 or 1 where there is one draw.
        seed: (S,) seeds.
    """

    uid: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    correct: np.ndarray
    seed: np.ndarray


def select_outcomes(result: ResultRecord, key: Key, *, vote: bool = False) -> Outcomes | None:
    """Return the predictions at a training fraction (a number) or for a probe protocol (a word), None without any.

    Args:
        result: A fine-tuning or probe result.
        key: Fraction such as 1.0, or protocol such as ``svm``.
        vote: Take the voted predictions.
    """
    arrays = result.predictions
    name, column = ("prediction_vote" if vote else "prediction"), ("protocol" if isinstance(key, str) else "fraction")
    if not {"uid", "label", "seed", name, column} <= arrays.keys():
        return None
    chosen = arrays[column] == key if isinstance(key, str) else np.isclose(arrays[column].astype(float), key)
    if not chosen.any():
        return None
    label, prediction = arrays["label"].astype(np.int64), arrays[name][chosen].astype(np.int64)
    correct = (prediction == label).astype(np.float64)
    if not vote and "correct" in arrays:
        correct = arrays["correct"][chosen].astype(np.float64)
    return Outcomes(uid=arrays["uid"], label=label, prediction=prediction, correct=correct, seed=arrays["seed"][chosen])


def compare(
    first: Outcomes | None, second: Outcomes | None, *, store: ObjectStore, bootstrap: BootstrapSettings
) -> dict[str, Any] | None:
    """Return the paired difference first minus second over shared seeds and shared test objects, None without any."""
    if first is None or second is None:
        return None
    uid, here, there = np.intersect1d(first.uid, second.uid, return_indices=True)
    seeds, row, other_row = np.intersect1d(first.seed, second.seed, return_indices=True)
    if not len(uid) or not len(seeds):
        return None
    group_of = dict(zip(store.uids.tolist(), store.groups.tolist(), strict=True))
    difference = paired_difference(
        first.correct[np.ix_(row, here)],
        second.correct[np.ix_(other_row, there)],
        groups=np.array([group_of.get(name) or name for name in uid.tolist()]),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )
    return asdict(difference) | {"verdict": difference.verdict}


def compare_episodes(
    first: list[dict[str, Any]], second: list[dict[str, Any]], *, bootstrap: BootstrapSettings
) -> dict[str, Any] | None:
    """Return the paired difference over shared few-shot episodes, None for less than five."""
    scores, others = ({run["seed"]: run["oa"] / 100 for run in runs} for runs in (first, second))
    shared = sorted(scores.keys() & others.keys())
    if len(shared) < MIN_EPISODES:
        return None
    difference = paired_difference(
        np.array([[scores[seed] for seed in shared]]),
        np.array([[others[seed] for seed in shared]]),
        groups=np.arange(len(shared)),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )
    return asdict(difference) | {"verdict": difference.verdict}


def class_accuracy(outcomes: Outcomes, num_classes: int) -> np.ndarray:
    """Return the (num_classes,) accuracy in percent, averaged over seeds; NaN for a class without test objects."""
    right = outcomes.correct.mean(axis=0)
    counts = np.bincount(outcomes.label, minlength=num_classes)
    sums = np.bincount(outcomes.label, weights=right, minlength=num_classes)
    return np.where(counts > 0, 100 * sums / np.maximum(counts, 1), np.nan)


def confusion_matrix(outcomes: Outcomes, num_classes: int) -> np.ndarray:
    """Return the (true, predicted) counts, averaged over seeds."""
    label = np.broadcast_to(outcomes.label, outcomes.prediction.shape)
    cells = (label * num_classes + outcomes.prediction).ravel()
    counts = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    return np.asarray(counts / len(outcomes.prediction))
