"""Synthetic objects are deterministic, well formed, fully labelled and different from each other."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from pointloom.data.synthetic import CATEGORIES, Assembly, SyntheticObject, generate_object
from pointloom.data.synthetic.primitives import box

NUM = 20


@cache
def objects_of(category: str, *, seed: int = 3) -> list[SyntheticObject]:
    return [generate_object(i, seed=seed, category=category) for i in range(NUM)]


def equal(a: SyntheticObject, b: SyntheticObject) -> bool:
    arrays = ("vertices", "faces", "face_color", "face_part")
    same = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
    return same and (a.uid, a.name, a.attributes, a.captions) == (b.uid, b.name, b.attributes, b.captions)


def test_there_are_at_least_sixteen_categories() -> None:
    assert len(CATEGORIES) >= 16


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_seed_and_index_give_the_same_object(category: str) -> None:
    assert equal(generate_object(11, seed=5, category=category), generate_object(11, seed=5, category=category))


def test_objects_do_not_depend_on_other_objects_or_on_global_random_state() -> None:
    alone = generate_object(44, seed=1)
    np.random.seed(0)
    for index in range(44):
        generate_object(index, seed=1)
    assert equal(generate_object(44, seed=1), alone)


def test_other_seed_or_index_gives_another_object() -> None:
    first = generate_object(0, seed=0, category="chair")
    for other in (generate_object(0, seed=1, category="chair"), generate_object(1, seed=0, category="chair")):
        assert first.vertices.shape != other.vertices.shape or not np.allclose(first.vertices, other.vertices)


def test_categories_take_turns_by_default() -> None:
    num = len(CATEGORIES)
    assert [generate_object(i, seed=0).category for i in range(num)] == list(CATEGORIES)
    assert generate_object(num + 2, seed=0).category == list(CATEGORIES)[2]


def test_uids_are_unique_and_name_category_seed_and_index() -> None:
    assert generate_object(7, seed=42, category="mug").uid == "synthetic-mug-42-000007"
    uids = [generate_object(i, seed=0).uid for i in range(60)]
    assert len(set(uids)) == 60


@pytest.mark.parametrize("category", CATEGORIES)
def test_geometry_is_finite_valid_and_has_extent(category: str) -> None:
    for item in objects_of(category):
        assert item.vertices.dtype == np.float32
        assert item.faces.dtype == np.int32
        assert item.face_color.dtype == item.face_part.dtype == np.uint8
        assert np.isfinite(item.vertices).all()
        assert item.faces.min() >= 0
        assert item.faces.max() < len(item.vertices)
        assert len(item.faces) == len(item.face_color) == len(item.face_part) >= 12
        extent = np.ptp(item.vertices, axis=0)
        assert (extent > 0.02 * extent.max()).all(), (item.name, extent)


@pytest.mark.parametrize("category", CATEGORIES)
def test_normals_point_outwards_on_the_whole(category: str) -> None:
    for item in objects_of(category):
        a, b, c = (item.vertices[item.faces[:, i]].astype(np.float64) for i in range(3))
        assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0, item.name


@pytest.mark.parametrize("category", CATEGORIES)
def test_part_labels_index_the_same_names_and_each_name_is_used(category: str) -> None:
    items = objects_of(category) + objects_of(category, seed=4) + objects_of(category, seed=5)
    names = items[0].part_names
    assert len(set(names)) == len(names) >= 2
    used: set[int] = set()
    for item in items:
        assert item.part_names == names
        assert item.face_part.max() < len(names)
        used |= set(item.face_part.tolist())
    assert used == set(range(len(names)))


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_differ_and_one_does_not_name_the_object(category: str) -> None:
    for item in objects_of(category):
        assert len(set(item.captions)) >= 4
        assert all(caption == caption.strip() and "{" not in caption for caption in item.captions)
        named = [text for text in item.captions if item.name in text]
        assert len(named) >= 4
        assert category not in item.captions[-1]
        assert item.name not in item.captions[-1]


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_use_the_right_article(category: str) -> None:
    for item in objects_of(category):
        for caption in item.captions:
            words = caption.split()
            for article, word in pairwise(words):
                if article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeiou" or word.startswith("L-")), caption


@pytest.mark.parametrize("category", CATEGORIES)
def test_attributes_are_distinct_words_that_captions_draw_from(category: str) -> None:
    for item in objects_of(category):
        assert len(item.attributes) >= 4
        assert len(set(item.attributes)) == len(item.attributes)
        assert any(word in " ".join(item.captions) for word in item.attributes)


@pytest.mark.parametrize("category", CATEGORIES)
def test_objects_of_a_category_vary_in_shape_style_and_words(category: str) -> None:
    items = objects_of(category)
    extents = np.array([np.ptp(item.vertices, axis=0) for item in items])
    ratios = extents / extents.max(axis=1, keepdims=True)
    assert ratios.std(axis=0).max() > 0.06
    assert len({item.attributes for item in items}) >= 12
    assert len({item.name for item in items}) >= 2
    assert len({len(item.faces) for item in items}) >= 4
    assert len({tuple(item.face_color[0]) for item in items}) >= 12


def test_every_object_is_its_own_group() -> None:
    item = generate_object(3, seed=0)
    assert item.group == item.uid


def test_unknown_category_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown synthetic category 'spoon'; choose one of: airplane, bed"):
        generate_object(0, seed=0, category="spoon")


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(index: int, seed: int) -> None:
    with pytest.raises(ValueError, match=f"must be 0 or more, got index={index}, seed={seed}"):
        generate_object(index, seed=seed)


def test_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"part 'wing' is not one of \['seat'\]"):
        Assembly("seat").add("wing", (0, 0, 0), box(1, 1, 1))


def test_golden_object_is_the_same_on_any_machine() -> None:
    item = generate_object(8, seed=0, category="chair")
    assert item.name == "chair"
    assert item.attributes[:2] == ("wooden", "light brown")
    assert (item.vertices.shape, item.faces.shape) == ((344, 3), (624, 3))
    center = item.vertices.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(center, (-0.003022, 0.089278, 0.435232), atol=2e-6)


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_do_not_repeat_a_word(category: str) -> None:
    for item in objects_of(category):
        for caption in item.captions:
            assert all(a != b for a, b in pairwise(caption.split())), caption
