"""Captions without a model: sentences about what can be measured on a cloud, or sentences that came with the data."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pointloom.captioners.cleaning import NEUTRAL_NOUNS, ClassMask, is_usable, tidy
from pointloom.captioners.facts import color_words, shape_words, taper_words
from pointloom.data.captions import Caption, CaptionsInfo, Described
from pointloom.data.class_names import class_phrases
from pointloom.data.shards import ObjectStore

NUM_POINTS = 2048
MAX_ADJECTIVES = 3


class OfflineCaptioner:
    """Describe objects by colour words, shape words and, if wanted, the name of their category.

    Nothing here has learned anything: the words are as good as the thresholds in ``facts.py``, and a category comes
    from the label. The first sentence holds everything that is known, the others hold parts of it; there are no scores.

    Args:
        store: Prepared objects.
        category: Whether sentences name the category. Where they do not, no word of any class name is used either.
        source: ``measured``, or ``store`` for the sentences that came with the data (generated objects have some) and
            measured ones for the objects that have none.

    Attributes:
        info: Description of the captions, without digests.
        block_size: Objects that are described at a time.
    """

    block_size = 256

    def __init__(self, store: ObjectStore, *, category: bool, source: Literal["measured", "store"]) -> None:
        self._store = store
        self._source = source
        self._phrases = class_phrases(store)
        self._mask = None if category else ClassMask([*store.info.classes, *self._phrases])
        self.info = CaptionsInfo(
            captioner="offline",
            model="measured facts"
            if source == "measured"
            else "sentences of the data, measured facts where it has none",
            model_digest=None,
            prompt=None,
            seed=None,
            category=category,
            ranker=None,
        )

    def __call__(self, rows: NDArray[np.int64]) -> list[Described]:
        """Return captions of some rows of the store, best first."""
        num = min(NUM_POINTS, self._store.info.num_points)
        coord, color = self._store.coords(rows, num), self._store.colors(rows, num)
        facts = zip(rows, shape_words(coord), color_words(color), taper_words(coord), strict=True)
        return [self._describe(int(row), shapes, colors, taper) for row, shapes, colors, taper in facts]

    def _describe(self, row: int, shapes: list[str], colors: list[str], taper: str) -> Described:
        texts = self._written(row) or self._measured(row, shapes, colors, taper)
        return Described([Caption(text, None, None, is_usable(text, prompt="")) for text in dict.fromkeys(texts)])

    def _written(self, row: int) -> list[str]:
        """Return the sentences that came with an object; without categories, the one that names nothing."""
        if self._source == "measured":
            return []
        written = [tidy(text) for text in self._store.captions[row] or ()]
        return written if self._mask is None else [self._mask(text) for text in written[-1:]]

    def _measured(self, row: int, shapes: list[str], colors: list[str], taper: str) -> list[str]:
        phrase = self._phrases.get(str(self._store.categories[row]), NEUTRAL_NOUNS[0])
        if self._mask is None:
            return sentences(phrase, shapes[:MAX_ADJECTIVES], colors, taper)
        shapes = [word for word in shapes if self._mask.allows(word)][:MAX_ADJECTIVES]
        colors = [word for word in colors if self._mask.allows(word)]
        made = sentences(self._mask.noun, shapes, colors, taper)
        return [text for text in made if self._mask.allows(text)] or [_with_article(self._mask.noun)]


def sentences(noun: str, shapes: Sequence[str], colors: Sequence[str], taper: str) -> list[str]:
    """Return up to four different sentences about one thing, the first of them with all facts.

    Args:
        noun: What it is called.
        shapes: Adjectives of its shape.
        colors: Adjectives of colour.
        taper: ``top`` or ``bottom`` where it is wider there, else empty.
    """
    paint = " and ".join(colors)
    words = [*shapes, *([paint] if paint else [])]
    wider = f"wider at the {taper}" if taper else ""
    made = [
        _with_article(f"{', '.join(words)} {noun}") + (f" that is {wider}" if wider else ""),
        f"this {noun} is {_listed([*shapes, *colors, wider])}",
        _with_article(noun)
        + (f" in {paint}" if paint else "")
        + (f" with a {', '.join(shapes)} shape" if shapes else ""),
        "a 3D model of " + _with_article(f"{' '.join(shapes[:1])} {noun}"),
    ]
    if not any((shapes, colors, wider)):
        del made[1]
    return list(dict.fromkeys(made))


def _with_article(words: str) -> str:
    words = words.strip()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _listed(words: Sequence[str]) -> str:
    words = [word for word in words if word]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
