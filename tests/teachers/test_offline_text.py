import json
import math

import numpy as np
import pytest

from pointloom.teachers.offline_text import (
    BagOfWords,
    fit_bag_of_words,
    load_bag_of_words,
    word_vectors,
    words_in_order,
    words_of,
)
from pointloom.teachers.prompts import PROMPTS, class_vectors, clean_name

CAPTIONS = ["a red chair", "a tall red lamp", "a small chair", "a blue table", "a table with glass"]


def bag(**more: float) -> BagOfWords:
    return fit_bag_of_words(CAPTIONS, dim=64, idf_power=more.get("idf_power", 1.0))


def unit(value: np.ndarray) -> np.ndarray:
    return value / np.linalg.norm(value, axis=-1, keepdims=True)


def test_words_are_lower_case_distinct_and_singular() -> None:
    assert words_of("Two RED chairs, two glass_tables & a bus!") == [
        "two",
        "red",
        "chair",
        "glass",
        "table",
        "a",
        "bus",
    ]


def test_a_text_is_the_weighted_sum_of_its_words() -> None:
    weight = {"red": math.log(6 / 3), "chair": math.log(6 / 3), "lamp": math.log(6 / 2)}
    vector = dict(zip(weight, word_vectors(list(weight), 64), strict=True))
    expected = sum(weight[word] * vector[word] for word in weight)
    found = bag().encode_text(["red chairs lamp chair"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_word_of_all_captions_weighs_next_to_nothing() -> None:
    plain, with_article = unit(bag().encode_text(["chair", "a chair"]))
    assert plain @ with_article > 0.9999


def test_word_vectors_are_normal_independent_and_never_change() -> None:
    vectors = word_vectors([f"word{i}" for i in range(400)], 255)
    assert abs(vectors.mean()) < 0.01
    assert abs(vectors.std() - 1) < 0.01
    cosine = unit(vectors) @ unit(vectors).T - np.eye(400)
    assert np.abs(cosine).max() < 0.35
    np.testing.assert_allclose(word_vectors(["chair"], 4)[0], [-0.7101524, 1.9559516, 0.6334348, -0.9676397], rtol=1e-5)
    np.testing.assert_array_equal(word_vectors(["b", "a"], 8)[1], word_vectors(["a"], 8)[0])


def test_unknown_words_are_named_and_left_out_beside_known_ones() -> None:
    teacher = bag()
    assert teacher.unknown_words("a wooden chair") == ["wooden"]
    np.testing.assert_array_equal(teacher.encode_text(["wooden chair"]), teacher.encode_text(["chair"]))
    alone = teacher.encode_text(["wooden", "iron", ""])
    assert np.linalg.norm(alone[0]) > 0
    assert abs(unit(alone[:1]) @ unit(alone[1:2]).T).item() < 0.5
    assert np.linalg.norm(alone[2]) == 0


def test_it_can_be_saved_and_opened_again() -> None:
    teacher = bag(idf_power=2.0)
    again = load_bag_of_words(json.loads(json.dumps(teacher.saved())))
    texts = ["a red lamp", "wooden", "glass tables"]
    np.testing.assert_array_equal(again.encode_text(texts), teacher.encode_text(texts))
    assert again.identity == teacher.identity
    assert bag().identity != teacher.identity


def test_rare_words_matter_more_with_a_higher_power() -> None:
    def likeness(power: float) -> float:
        a, b = unit(bag(idf_power=power).encode_text(["red lamp", "lamp"]))
        return float(a @ b)

    assert likeness(0.0) < likeness(1.0) < likeness(3.0)


def test_there_are_64_different_prompts_and_each_holds_the_name_once() -> None:
    prompts = PROMPTS["averaged_64"]
    assert len(set(prompts)) == 64
    assert all(prompt.count("{}") == 1 and prompt.endswith(".") for prompt in prompts)


@pytest.mark.parametrize("name", ["name", "averaged_64"])
def test_averaged_prompts_equal_the_average_by_hand(name: str) -> None:
    teacher, names = bag(), ["chair", "table", "lamp"]
    found = class_vectors(teacher.encode_text, names, prompts=PROMPTS[name])
    for vector, word in zip(found, names, strict=True):
        each = [unit(teacher.encode_text([prompt.format(word)]))[0] for prompt in PROMPTS[name]]
        np.testing.assert_allclose(vector, unit(np.mean(each, axis=0)), atol=1e-6)


def test_the_order_of_classes_does_not_matter() -> None:
    teacher = bag()
    forward = class_vectors(teacher.encode_text, ["chair", "table", "lamp"], prompts=PROMPTS["averaged_64"])
    backward = class_vectors(teacher.encode_text, ["lamp", "table", "chair"], prompts=PROMPTS["averaged_64"])
    np.testing.assert_array_equal(forward, backward[::-1])


def test_class_names_lose_their_underscores_and_keep_their_sense() -> None:
    assert clean_name("flower_pot") == "flower pot"
    assert clean_name("crane_(machine)") == "crane (machine)"


def test_words_in_order_tell_left_from_right() -> None:
    texts = ["the chair left of the table", "the table left of the chair", ""]
    vectors, valid = words_in_order(texts, 64)
    assert valid.sum(1).tolist() == [6, 6, 0]
    np.testing.assert_array_equal(vectors[0, 0], vectors[1, 0])
    assert not np.allclose(np.sort(vectors[0], axis=0), np.sort(vectors[1], axis=0))
    again, _ = words_in_order(texts[:1], 64)
    np.testing.assert_array_equal(again[0], vectors[0])
