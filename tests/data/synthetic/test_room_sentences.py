"""Every sentence fits exactly its object, found by a reader that knows only nouns, adjectives and boxes."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pointloom.data.scenes import SceneBoxes
from pointloom.data.synthetic_rooms import KINDS, Room, RoomSettings, generate_room
from pointloom.data.synthetic_rooms.things import CLASS_OF

SETTINGS = RoomSettings(num_points=3000, least_points=1, sentences_per_object=4)
RELATIONS = ("left of", "right of", "in front of", "behind", "above", "on", "closest to", "farthest from")
NOUNS = sorted(CLASS_OF, key=len, reverse=True)


@cache
def room(index: int) -> Room:
    return generate_room(index, seed=11, settings=replace(SETTINGS, turned=index % 2 == 1))


ROOMS = range(len(KINDS))


def matches(room: Room, phrase: str) -> list[int]:
    """Return the objects that "[adjective] noun" names."""
    noun = next(noun for noun in NOUNS if phrase == noun or phrase.endswith(" " + noun))
    word = phrase.removesuffix(noun).strip()
    return [i for i, t in enumerate(room.things) if t.noun == noun and (not word or word in t.words)]


def holds(relation: str, boxes: SceneBoxes, door: int, i: int, j: int) -> bool:
    """Tell whether i stands in a relation to j as docs/synthetic.md defines it."""
    x, y, _ = (float(v) for v in boxes.center[i] - boxes.center[j])
    low = float(boxes.center[i, 2] - boxes.size[i, 2] / 2)
    rise = low - float(boxes.center[j, 2] + boxes.size[j, 2] / 2)
    if relation in ("on", "above"):
        turn = -float(boxes.heading[j])
        own = abs(np.cos(turn) * x - np.sin(turn) * y), abs(np.sin(turn) * x + np.cos(turn) * y)
        beyond = max(own[0] - float(boxes.size[j, 0]) / 2, own[1] - float(boxes.size[j, 1]) / 2)
        return beyond <= 0 and abs(rise) <= 0.05 if relation == "on" else beyond <= 0.25 and rise >= 0.2
    # a viewer who stands in the door looks where its front looks; the front of heading 0 looks along -y
    looks = float(boxes.heading[door]) - np.pi / 2
    ahead = x * np.cos(looks) + y * np.sin(looks)
    left = x * np.cos(looks + np.pi / 2) + y * np.sin(looks + np.pi / 2)
    along = {"left of": left, "right of": -left, "behind": ahead, "in front of": -ahead}[relation]
    across = ahead if relation in ("left of", "right of") else left
    return bool(along >= abs(across))


def understand(room: Room, text: str) -> list[int]:
    """Return the objects that a sentence fits."""
    boxes = room.scene.boxes
    assert boxes is not None
    found = re.fullmatch(rf"the (.+?) ({'|'.join(RELATIONS)}) the (.+)", text)
    head, relation, landmark = found.groups() if found else (text.removeprefix("the "), None, None)
    extreme = re.match(r"(largest|smallest) ", head)
    candidates = matches(room, head[extreme.end() :] if extreme else head)
    if extreme:
        order = sorted(candidates, key=lambda i: float(boxes.size[i].prod()))
        return order[-1:] if extreme[1] == "largest" else order[:1]
    if relation is None or landmark is None:
        return candidates
    (other,) = matches(room, landmark)
    if relation in ("closest to", "farthest from"):
        distance = {i: float(np.linalg.norm((boxes.center[i] - boxes.center[other])[:2])) for i in candidates}
        best = min(distance.values()) if relation == "closest to" else max(distance.values())
        return [i for i in candidates if distance[i] == best]
    doors = [i for i, thing in enumerate(room.things) if thing.noun == "door"]
    return [i for i in candidates if holds(relation, boxes, doors[0], i, other)]


@pytest.mark.parametrize("index", ROOMS)
def test_sentences_fit_exactly_the_object_that_they_are_about(index: int) -> None:
    item = room(index)
    assert item.scene.boxes is not None
    assert len(item.scene.sentences) > 5
    for sentence in item.scene.sentences:
        fitting = [int(item.scene.boxes.instance[i]) for i in understand(item, sentence.text)]
        assert fitting == [sentence.instance], sentence.text


def test_unique_means_alone_in_its_class() -> None:
    seen = set()
    for index in ROOMS:
        item = room(index)
        assert item.scene.boxes is not None
        labels = item.scene.boxes.label.tolist()
        for sentence in item.scene.sentences:
            alone = labels.count(labels[item.scene.boxes.instance.tolist().index(sentence.instance)]) == 1
            assert sentence.unique == alone
            seen.add(sentence.unique)
    assert seen == {True, False}


def test_all_patterns_occur_and_no_object_has_more_sentences_than_asked() -> None:
    texts = [sentence.text for index in ROOMS for sentence in room(index).scene.sentences]
    for pattern in (*RELATIONS, "largest", "smallest"):
        assert any(re.search(rf"\b{pattern}\b", text) for text in texts), pattern
    for index in ROOMS:
        about = [sentence.instance for sentence in room(index).scene.sentences]
        assert max(np.bincount(about)) <= 4
        assert len({(s.text, s.instance) for s in room(index).scene.sentences}) == len(about)


def test_without_sentences_there_are_none() -> None:
    quiet = generate_room(0, seed=11, settings=replace(SETTINGS, sentences_per_object=0))
    assert quiet.scene.sentences == ()
