"""Nearest-neighbour shape retrieval with frozen features: every query and every answer is a test object."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pointloom.report.inputs import ResultRecord

FEWEST = 3
"""With fewer test objects, maps and retrieval show all objects."""


@dataclass(frozen=True)
class Gallery:
    """Features of the test objects, standardised with the training objects.

    Attributes:
        uid: (T,) names.
        label: (T,) classes, -1 where unknown.
        feature: (T, D) rows of unit length, so that a product is a cosine.
        split: Split the objects are from.
    """

    uid: np.ndarray
    label: np.ndarray
    feature: Float[np.ndarray, "t d"]
    split: str


def load_gallery(result: ResultRecord, *, limit: int, seed: int) -> Gallery | None:
    """Return the features of the test objects (of all objects where few are held out), None without features.

    Args:
        result: A probe result with ``features.npz``.
        limit: Largest number of objects; a seeded choice is made above it.
        seed: Seed of that choice.
    """
    arrays = result.features
    if not {"uid", "split", "label", "feature"} <= arrays.keys() or len(arrays["uid"]) < FEWEST:
        return None
    feature = arrays["feature"].astype(np.float64)
    held_out = arrays["split"] == "test"
    if held_out.sum() < FEWEST:
        held_out = np.ones(len(feature), dtype=bool)
    known = feature[~held_out] if (~held_out).sum() > 1 else feature
    feature = (feature - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-6)
    feature = feature / np.maximum(np.linalg.norm(feature, axis=1, keepdims=True), 1e-12)
    chosen = np.flatnonzero(held_out)
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, size=limit, replace=False))
    return Gallery(
        uid=arrays["uid"][chosen],
        label=arrays["label"][chosen],
        feature=feature[chosen],
        split="test" if (arrays["split"] == "test").sum() >= FEWEST else "all",
    )


def nearest(gallery: Gallery) -> Int[np.ndarray, "t m"]:
    """Return for every object all others, nearest first by cosine; ties keep their order."""
    similarity = gallery.feature @ gallery.feature.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :-1]


def retrieval_scores(gallery: Gallery) -> dict[str, Any] | None:
    """Return precision at 1 and 5 and mean average precision in percent, None without labels.

    Objects whose class has no other test object have no right answer and are left out as queries.
    """
    if (gallery.label < 0).all():
        return None
    ranked = gallery.label[nearest(gallery)]
    same = ranked == gallery.label[:, None]
    answerable = same.any(axis=1) & (gallery.label >= 0)
    if not answerable.any():
        return None
    same = same[answerable]
    precision = same.cumsum(axis=1) / np.arange(1, same.shape[1] + 1)
    average = (precision * same).sum(axis=1) / same.sum(axis=1)
    return {
        "queries": int(answerable.sum()),
        "precision_at_1": float(100 * same[:, 0].mean()),
        "precision_at_5": float(100 * same[:, :5].mean()),
        "map": float(100 * average.mean()),
    }


def pick_queries(gallery: Gallery, *, count: int, seed: int) -> list[int]:
    """Return seeded query positions, each of another class while classes last; never chosen by how well they do."""
    return varied_choice(gallery.label, count=count, seed=seed)


def varied_choice(label: Int[np.ndarray, " t"], *, count: int, seed: int) -> list[int]:
    """Return seeded positions, each of another class while classes last; -1 is a class that never ends."""
    order = np.random.default_rng(seed).permutation(len(label))
    seen: set[int] = set()
    first: list[int] = []
    rest: list[int] = []
    for position in order.tolist():
        own = int(label[position])
        (rest if own >= 0 and own in seen else first).append(position)
        seen.add(own)
    return (first + rest)[:count]
