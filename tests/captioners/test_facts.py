import colorsys

import numpy as np
import pytest

from pointloom.captioners.facts import color_words, shape_words, taper_words
from tests.captioners.stores import GREY, box


def painted(*parts: tuple[tuple[int, int, int], int]) -> np.ndarray:
    """One object with so many points of each colour."""
    return np.concatenate([np.tile(np.array(rgb, dtype=np.uint8), (num, 1)) for rgb, num in parts])[None]


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((250, 10, 10), "red"), ((10, 120, 20), "green"), ((20, 40, 230), "blue"), ((10, 10, 12), "black"),
        ((250, 250, 250), "white"), ((120, 120, 120), "grey"), ((130, 80, 40), "brown"), ((255, 240, 20), "yellow"),
        ((255, 150, 10), "orange"), ((255, 120, 190), "pink"), ((120, 20, 140), "purple"),
        ((60, 220, 210), "turquoise"), ((230, 210, 170), "beige"),
    ],
)  # fmt: skip
def test_colours_have_their_names(rgb: tuple[int, int, int], word: str) -> None:
    assert color_words(painted((rgb, 10))) == [[word]]


def test_saturated_colours_go_round_the_wheel_in_its_order() -> None:
    wheel = [tuple(int(255 * c) for c in colorsys.hsv_to_rgb(h / 360, 1, 1)) for h in range(0, 360, 5)]
    words = [color_words(painted((rgb, 1)))[0][0] for rgb in wheel]  # type: ignore[arg-type]
    seen = [word for i, word in enumerate(words) if word != words[i - 1]]
    names = ["red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink"]
    assert sorted(set(seen), key=names.index) == names
    order = [names.index(word) for word in words]
    assert sum(order[i] < order[i - 1] for i in range(1, len(order))) <= 1  # purple and pink may share magenta


def test_a_colour_needs_more_than_a_fifth_and_there_are_two_at_most() -> None:
    red, blue, green = (255, 0, 0), (0, 0, 255), (0, 128, 0)
    assert color_words(painted((red, 80), (blue, 20))) == [["red"]]
    assert color_words(painted((blue, 79), (red, 21))) == [["blue", "red"]]
    assert color_words(painted((green, 25), (red, 40), (blue, 35))) == [["red", "blue"]]


def test_objects_without_colour_get_no_colour_word() -> None:
    assert color_words(painted((GREY, 50))) == [[]]
    assert color_words(painted((GREY, 49), ((150, 150, 150), 1))) == [["grey"]]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1, 1, 4), {"tall", "square"}),
        ((4, 4, 0.3), {"flat", "square"}),
        ((2, 1.2, 0.5), {"low"}),
        ((4, 1, 1), {"long", "horizontal"}),
        ((1, 1, 1), {"compact", "square"}),
        ((4, 0.2, 3), {"long", "thin"}),
    ],
)
def test_boxes_have_their_proportions(size: tuple[float, float, float], words: set[str]) -> None:
    (found,) = shape_words(box(size)[None])
    assert set(found) == words


def test_turning_about_the_up_axis_changes_no_word() -> None:
    for size in ((1, 1, 4), (6, 1, 1), (4, 0.2, 3), (1, 1, 1)):
        words = []
        for degrees in range(0, 180, 15):
            angle = np.deg2rad(degrees)
            turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            words.append(tuple(shape_words((box(size) @ turn.T)[None].astype(np.float32))[0]))
        assert len(set(words)) == 1, (size, words)


def test_round_outlines_are_round_and_square_ones_are_not() -> None:
    angle = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    z = np.resize(np.linspace(-0.5, 0.5, 7), 512)
    cylinder = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), z], 1)[None].astype(np.float32)
    assert "round" in shape_words(cylinder)[0]
    assert "square" not in shape_words(cylinder)[0]
    assert "round" not in shape_words(box((1, 1, 1))[None])[0]


def test_taper_says_which_end_is_wider() -> None:
    rng = np.random.default_rng(0)
    z = rng.uniform(0, 1, 4000)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    cone = np.stack([(1 - z) * np.cos(angle), (1 - z) * np.sin(angle), z * 2], 1).astype(np.float32)
    upside_down = cone * np.array([1, 1, -1], dtype=np.float32)
    assert taper_words(np.stack([cone, upside_down, np.resize(box((1, 1, 2)), cone.shape)])) == ["bottom", "top", ""]


def test_words_of_an_object_do_not_depend_on_the_others() -> None:
    boxes = np.stack([box(size) for size in ((1, 1, 4), (4, 4, 0.3), (5, 1, 1))])
    assert shape_words(boxes) == [shape_words(one[None])[0] for one in boxes]


def test_a_cloud_in_one_line_or_place_is_described_without_warnings() -> None:
    point = np.zeros((1, 16, 3), dtype=np.float32)
    line = point.copy()
    line[0, :, 2] = np.linspace(-1, 1, 16)
    assert "tall" in shape_words(line)[0]
    shape_words(point)
    assert taper_words(point) == [""]
