import pytest

from pointloom.captioners.cleaning import ClassMask, is_usable, tidy
from pointloom.data.mentions import class_words, mentioning

CLASSES = ["night_stand", "chair", "DeskLamp", "shelf", "box", "car", "knife"]


@pytest.mark.parametrize("text", ["a red chair", "two words", "a chair with a red seat and a red back"])
def test_plain_sentences_are_usable(text: str) -> None:
    assert is_usable(text, prompt="a photo of")


@pytest.mark.parametrize(
    "text",
    ["", "chair", " . ! ", "a photo of", "A photo of", "a photo of a photo of", "a photo of a photo of chair"],
)
def test_fewer_than_two_words_beside_the_prompt_are_not_usable(text: str) -> None:
    assert not is_usable(text, prompt="a photo of")


def test_the_prompt_may_come_back_when_something_follows() -> None:
    assert is_usable("a photo of a chair", prompt="a photo of")


def test_more_than_60_percent_repeated_word_pairs_are_not_usable() -> None:
    assert not is_usable("a chair a chair a chair a chair", prompt="")  # 7 pairs, 2 different: 71 % repeats
    assert is_usable("a chair a chair a red", prompt="")  # 5 pairs, 3 different: 40 %
    assert is_usable("red red red red red".replace("red red red", "red green red"), prompt="")
    assert is_usable("a b a b a b", prompt="")  # 5 pairs, 2 different: exactly 60 %
    assert not is_usable("a b a b a b a", prompt="")


def test_tidy_leaves_one_line() -> None:
    assert tidy("  a chair\n with\tlegs ") == "a chair with legs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red chair", "a red object"),
        ("a chair", "an object"),
        ("A chair by the door", "An object by the door"),
        ("two Chairs and shelves", "two object"),
        ("a wooden night stand with a lamp", "a wooden object with an object"),
        ("a night-stand", "an object"),
        ("a box, chair", "an object"),
        ("an armchair", "an object"),
        ("a bookshelf", "an object"),
        ("a carpet", "a carpet"),  # "car" is too short to be looked for inside words
        ("knives", "object"),
        ("aDeskLamp", "an object"),
        ("tall and understanding", "tall and understanding"),
        ("a standing sofa", "an object sofa"),
        ("a red sofa", "a red sofa"),
    ],
)
def test_class_words_are_replaced(text: str, expected: str) -> None:
    assert ClassMask(CLASSES)(text) == expected


def test_what_was_replaced_names_no_class_by_the_rule_of_held_out_classes() -> None:
    texts = [["night stands and DeskLamps", "boxes, shelves, knives; a car's chair", "NIGHT STAND", "lamp-shelf box"]]
    mask, words = ClassMask(CLASSES), class_words(CLASSES)
    assert mentioning(texts, words, num=4).all()
    assert not mentioning([[mask(text) for text in texts[0]]], words, num=4).any()


def test_the_neutral_noun_is_no_class_word_itself() -> None:
    mask = ClassMask(["object", "moving items", "chair"])
    assert mask("a chair and an object") == "a thing and a thing"
