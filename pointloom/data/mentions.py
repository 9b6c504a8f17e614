"""Which captions name a class: the rule by which classes are held out of an alignment."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_FILLERS = frozenset({"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"})


def class_words(names: Iterable[str]) -> frozenset[str]:
    """Return every word of the class names in singular and plural; fillers such as "of" are left out."""
    words = {word for name in names for word in words_of(name) if word not in _FILLERS}
    return frozenset(form for word in words for form in _forms(word))


def draw_classes(names: Sequence[str], num: int, *, seed: int) -> list[str]:
    """Draw at most ``num`` classes, and at most half of all, to hold out.

    Classes that share no word with another class come first: holding out "table" would take the captions of every
    "coffee table" with it.
    """
    words = {name: class_words([name]) for name in names}
    alone = {name: all(words[name].isdisjoint(words[other]) for other in names if other != name) for name in names}
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    return sorted(sorted(shuffled, key=lambda name: not alone[name])[: min(num, len(names) // 2)])


def mentioning(texts: Sequence[Sequence[str]], words: frozenset[str], *, num: int) -> NDArray[np.bool_]:
    """Return (R, num) which captions of each object contain one of the words; False where there is no caption."""
    found = np.zeros((len(texts), num), dtype=bool)
    for row, captions in enumerate(texts):
        for column, caption in enumerate(captions[:num]):
            found[row, column] = not words.isdisjoint(words_of(caption))
    return found


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; ``CamelCase`` is two."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def _forms(word: str) -> set[str]:
    forms = {word, f"{word}s", f"{word}es"}
    for ending, instead in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f")):
        if word.endswith(ending):
            forms.add(word.removesuffix(ending) + instead)
    if word.endswith("y"):
        forms.add(word[:-1] + "ies")
    if word.endswith(("f", "fe")):
        forms.add(word.removesuffix("e")[:-1] + "ves")
    return forms
