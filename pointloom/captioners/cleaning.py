"""What is done to every sentence that a model or a person wrote, before anything learns from it."""

import itertools
import re
from collections.abc import Sequence

from pointloom.data.mentions import class_words

MIN_WORDS = 2
MAX_REPEATED = 0.6
NEUTRAL_NOUNS = ("object", "item", "thing", "shape")
_MIN_STEM = 4
_WORD = re.compile(r"[^\W_]+")


def tidy(text: str) -> str:
    """Return a text on one line, without blanks around it."""
    return " ".join(text.split())


def is_usable(text: str, *, prompt: str) -> bool:
    """Tell sentences from the known ways in which a language model fails.

    Returns:
        False for fewer than two words beside the prompt, and where more than 60 % of the word pairs are repeats.
    """
    words = _WORD.findall(text.lower())
    if len(_without_prompt(words, _WORD.findall(prompt.lower()))) < MIN_WORDS:
        return False
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) <= MAX_REPEATED


def _without_prompt(words: list[str], prompt: list[str]) -> list[str]:
    kept: list[str] = []
    at = 0
    while at < len(words):
        if prompt and words[at : at + len(prompt)] == prompt:
            at += len(prompt)
        else:
            kept.append(words[at])
            at += 1
    return kept


class ClassMask:
    """Replace the words of all class names, so that captions name no category.

    Singular and plural, the parts of names of several words, and longer words that begin or end with a class word of at
    least four letters (armchair, tabletop) are replaced. Other words for the same thing (couch for sofa) are not known.

    Args:
        classes: Class names.

    Attributes:
        words: All that is replaced.
        noun: What stands there instead.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.words = class_words(classes)
        self.noun = next(noun for noun in NEUTRAL_NOUNS if noun not in self.words)
        self._stems = tuple(sorted(word for word in self.words if len(word) >= _MIN_STEM))

    def hides(self, word: str) -> bool:
        """Return whether a word tells a category."""
        word = word.lower()
        return word in self.words or word.startswith(self._stems) or word.endswith(self._stems)

    def allows(self, text: str) -> bool:
        """Return whether a text holds no word that tells a category."""
        return not any(self.hides(word) for word in _WORD.findall(text))

    def __call__(self, text: str) -> str:
        """Return a text with the neutral noun in place of class words."""
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
        text = _WORD.sub(lambda found: self.noun if self.hides(found[0]) else found[0], text)
        text = re.sub(rf"\b{self.noun}(?:(?:\s+|-|,\s*|\s+(?:or|and|of)\s+){self.noun}\b)+", self.noun, text)
        return re.sub(rf"\b([Aa])n?(?=\s+{self.noun}\b)", rf"\1{'n' if self.noun[0] in 'aeiou' else ''}", text)
