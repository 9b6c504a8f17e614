import re
from pathlib import Path

import numpy as np
import pytest

from pointloom.captioners.offline import OfflineCaptioner, sentences
from pointloom.data.mentions import class_words, mentioning
from pointloom.data.synthetic import CATEGORIES, generate_object
from tests.captioners.stores import GREY, Thing, write_things

THINGS = (
    Thing(category="night_stand", size=(1, 1, 4), color=(200, 30, 30)),
    Thing(category="orange", size=(1, 1, 1), color=(250, 140, 0)),
    Thing(category="flat_box", size=(4, 4, 0.3), color=(20, 40, 220)),
    Thing(category="shelf", size=(3, 0.3, 3), color=(130, 80, 40), split="test"),
    Thing(category="green_apple", size=(1, 1, 1), color=(0, 130, 0)),
    Thing(category=None, size=(4, 1, 1), color=GREY),
)


def described(
    folder: Path, *, category: bool = True, source: str = "measured", things: object = THINGS
) -> list[list[str]]:
    store = write_things(folder, things)  # type: ignore[arg-type]
    captioner = OfflineCaptioner(store, category=category, source=source)  # type: ignore[arg-type]
    found = captioner(np.arange(len(store)))
    assert all(one.problem is None and one.captions for one in found)
    assert all((c.score, c.view, c.ok) == (None, None, True) for one in found for c in one.captions)
    return [[caption.text for caption in one.captions] for one in found]


def test_sentences_hold_category_colour_and_shape(tmp_path: Path) -> None:
    texts = described(tmp_path / "s")
    assert texts[0] == [
        "a tall, square, red night stand",
        "this night stand is tall, square and red",
        "a night stand in red with a tall, square shape",
        "a 3D model of a tall night stand",
    ]
    assert texts[1][0] == "a compact, square, orange orange"
    assert texts[5][0] == "a long, horizontal object"


def test_the_first_sentence_has_every_fact_that_another_one_has() -> None:
    made = sentences("chair", ["tall", "thin"], ["red", "blue"], "top")
    filler = {"this", "is", "in", "with", "shape", "3d", "model", "of", "a", "an"}
    first = set(re.findall(r"\w+", made[0].lower()))
    assert all(set(re.findall(r"\w+", text.lower())) - filler <= first for text in made)


@pytest.mark.parametrize("noun", ["chair", "axe or hammer"])
@pytest.mark.parametrize("shapes", [[], ["tall"], ["thin", "round", "low"]])
@pytest.mark.parametrize("colors", [[], ["orange"], ["red", "blue"]])
@pytest.mark.parametrize("taper", ["", "top"])
def test_every_combination_of_facts_makes_different_plain_sentences(
    noun: str, shapes: list[str], colors: list[str], taper: str
) -> None:
    made = sentences(noun, shapes, colors, taper)
    assert len(made) == len(set(made)) >= 2
    for text in made:
        assert noun in text
        assert not re.search(r"\s\s|^\s|\s$|\s,|, and|\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|is$|and$", text), text


def test_without_category_no_caption_has_a_word_of_any_class(tmp_path: Path) -> None:
    words = class_words([thing.category for thing in THINGS if thing.category])
    named = described(tmp_path / "a", category=True)
    blind = described(tmp_path / "b", category=False)
    assert all(mentioning(named[:5], words, num=4).any(1))
    assert not mentioning(blind, words, num=4).any()
    assert blind[0][0] == "a tall, square, red object"
    assert blind[1][0] == "a compact, square object"  # "orange" names a class
    assert blind[2][0] == "a square, blue object"  # so does "flat"


def test_captions_of_an_object_depend_on_its_own_label_only(tmp_path: Path) -> None:
    other = [*THINGS[:3], Thing(category="chair", size=(3, 0.3, 3), color=(130, 80, 40), split="test"), *THINGS[4:]]
    first, second = described(tmp_path / "a"), described(tmp_path / "b", things=other)
    assert first[3] != second[3]
    assert first[:3] + first[4:] == second[:3] + second[4:]


def test_blocks_do_not_change_captions(tmp_path: Path) -> None:
    store = write_things(tmp_path / "s", THINGS)
    captioner = OfflineCaptioner(store, category=True, source="measured")
    rows = np.arange(len(store))
    assert captioner(rows) == [captioner(rows[i : i + 1])[0] for i in rows]


def test_sentences_of_the_data_are_used_where_there_are_some(tmp_path: Path) -> None:
    things = [Thing(captions=("a  wooden chair", "a seat in brown")), Thing(size=(1, 1, 4))]
    assert described(tmp_path / "a", source="store", things=things) == [
        ["a wooden chair", "a seat in brown"],
        ["a tall, square, red chair", *described(tmp_path / "c", things=things)[1][1:]],
    ]
    blind = described(tmp_path / "b", source="store", category=False, things=things)
    assert blind[0] == ["a seat in brown"]
    assert blind[1][0] == "a tall, square, red object"


def test_sentences_of_generated_objects_name_no_class_without_category(tmp_path: Path) -> None:
    made = [generate_object(i, seed=0) for i in range(60)]
    things = [Thing(category=one.category, captions=one.captions) for one in made]
    texts = described(tmp_path / "s", source="store", category=False, things=things)
    assert not mentioning(texts, class_words(CATEGORIES), num=5).any()
    assert all(len(found) == 1 for found in texts)
