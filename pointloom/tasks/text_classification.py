"""Classification by text: the class whose sentence lies nearest to a cloud, no label and no training involved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from pointloom.tasks.classification import accuracy

TOP = (1, 3, 5)


@dataclass(frozen=True)
class TextScores:
    """Which classes a set of clouds was given.

    Attributes:
        prediction: (t,) nearest class per cloud, a number of ``classes``.
        hits: k -> (t,) 1 where the true class is among the k nearest.
        metrics: ``top1``, ``top3``, ``top5`` and ``macc`` in percent.
    """

    prediction: NDArray[np.int64]
    hits: dict[int, NDArray[np.float64]]
    metrics: dict[str, float]


def classify_by_text(
    embedding: Float[np.ndarray, "t d"],
    class_text: Float[np.ndarray, "c d"],
    label: Int[np.ndarray, " t"],
    *,
    candidates: Sequence[int],
) -> TextScores:
    """Rank classes by the cosine between a cloud and the text of the class.

    Args:
        embedding: Unit vectors of the clouds in the space of the text teacher.
        class_text: Unit vectors of all classes.
        label: True classes, all of them among the candidates.
        candidates: Classes to choose from.

    Raises:
        ValueError: There is nothing to classify, or a true class is no candidate.
    """
    chosen = np.sort(np.asarray(candidates, dtype=np.int64))
    if len(label) == 0 or not np.isin(label, chosen).all():
        raise ValueError(f"{len(label)} clouds with {len(chosen)} candidate classes: every true class must be one")
    similarity = embedding @ class_text[chosen].T
    own = similarity[np.arange(len(label)), np.searchsorted(chosen, label)]
    rank = (similarity >= own[:, None]).sum(1)  # a class that ties with the true one counts as before it
    hits = {k: (rank <= k).astype(np.float64) for k in TOP}
    metrics = {f"top{k}": 100.0 * float(hit.mean()) for k, hit in hits.items()}
    metrics["macc"] = accuracy(hits[1], label).macc
    return TextScores(prediction=chosen[similarity.argmax(1)], hits=hits, metrics=metrics)


def chance(num_classes: int) -> dict[str, float]:
    """Return what guessing reaches, in percent: ``top1``, ``top3`` and ``top5``."""
    return {f"top{k}": 100.0 * min(1.0, k / num_classes) for k in TOP}
