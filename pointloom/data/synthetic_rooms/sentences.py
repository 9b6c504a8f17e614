"""Sentences that refer to one object of a room, and fit no other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from pointloom.data.scenes import SceneBoxes, Sentence
from pointloom.data.synthetic import Draw
from pointloom.data.synthetic_rooms.relations import LARGER, NEARER, distances, pairwise
from pointloom.data.synthetic_rooms.things import Thing

LANDMARK = 0.4  # metres, longest side of what others are described by


def refer(things: Sequence[Thing], boxes: SceneBoxes, draw: Draw, *, per_object: int) -> tuple[Sentence, ...]:
    """Write up to ``per_object`` sentences about each object of a room.

    Args:
        things: The objects.
        boxes: Theirs, in the same order.
        draw: Chooses among the sentences that fit.
        per_object: At most so many about one object, of different patterns where possible.
    """
    doors = [i for i, thing in enumerate(things) if thing.noun == "door"]
    pairs = pairwise(boxes, doors[0] if len(doors) == 1 else None)
    apart = distances(boxes)
    volume = boxes.size.astype(np.float64).prod(axis=1)
    landmarks = _landmarks(things, boxes, draw)
    _, label, count = np.unique(boxes.label, return_inverse=True, return_counts=True)
    sentences = []
    for i, thing in enumerate(things):
        patterns: list[list[str]] = [[], [], [], []]
        for head, same in _heads(things, i, draw):
            others = same.copy()
            others[i] = False
            if others.any():
                patterns[1] += _extreme(head, i, others, volume)
            elif not patterns[0]:
                patterns[0].append(f"the {head}")
            near = {j: text for j, text in landmarks.items() if things[j].noun != thing.noun}
            for relation in pairs:
                fits = relation.clear[i] & ~relation.loose[others].any(axis=0)
                patterns[2] += [f"the {head} {relation.words} {text}" for j, text in near.items() if fits[j]]
            patterns[3] += _by_distance(head, near, apart[i], apart[others])
        chosen = [draw.choose(texts) for texts in draw.shuffled([texts for texts in patterns if texts])]
        unique = bool(count[label[i]] == 1)
        sentences += [Sentence(text, int(boxes.instance[i]), unique) for text in chosen[:per_object]]
    return tuple(sentences)


def _heads(things: Sequence[Thing], i: int, draw: Draw) -> Iterator[tuple[str, Bool[np.ndarray, " k"]]]:
    """Yield a noun, and the noun with one adjective, each with the places of the objects that it names."""
    noun = things[i].noun
    same = np.array([other.noun == noun for other in things])
    yield noun, same
    if same.sum() > 1 and things[i].words:
        word = draw.choose(things[i].words)
        yield f"{word} {noun}", same & np.array([word in other.words for other in things])


def _landmarks(things: Sequence[Thing], boxes: SceneBoxes, draw: Draw) -> dict[int, str]:
    """Return what describes large objects by noun, or adjective and noun, where that fits one object only."""
    landmarks = {}
    for i in range(len(things)):
        if boxes.size[i].max() < LANDMARK:
            continue
        texts = [f"the {head}" for head, same in _heads(things, i, draw) if same.sum() == 1]
        if texts:
            landmarks[i] = texts[0]
    return landmarks


def _by_distance(head: str, near: dict[int, str], own: NDArray[np.float64], others: NDArray[np.float64]) -> list[str]:
    """Return sentences about being closest to, or farthest from, what is described, among those of one name."""
    if not len(others):
        return []
    closest, farthest = own + NEARER < others.min(axis=0), own - NEARER > others.max(axis=0)
    texts = [f"the {head} closest to {text}" for j, text in near.items() if closest[j]]
    return texts + [f"the {head} farthest from {text}" for j, text in near.items() if farthest[j]]


def _extreme(head: str, i: int, others: Bool[np.ndarray, " k"], volume: NDArray[np.float64]) -> list[str]:
    if volume[i] > LARGER * volume[others].max():
        return [f"the largest {head}"]
    if volume[i] * LARGER < volume[others].min():
        return [f"the smallest {head}"]
    return []
