"""What an aligned encoder keeps of its text teacher, so that it can be asked about classes of other data sets."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from pointloom.data.mentions import class_words, words_of
from pointloom.errors import CheckpointError

FORMAT = 1
FILE = "text.json"


@dataclass(frozen=True)
class AlignedText:
    """The text side of an aligned encoder.

    Attributes:
        teacher: Name of the text teacher.
        reopen: What its loader needs.
        words: Every word of the captions that were aligned with, sorted.
    """

    teacher: str
    reopen: dict[str, Any]
    words: tuple[str, ...]

    def named(self, classes: Sequence[str]) -> Bool[np.ndarray, " c"]:
        """Return which classes have a word of their names, singular or plural, in a caption: the strict reading."""
        known = frozenset(self.words)
        return np.array([not known.isdisjoint(class_words([name])) for name in classes], dtype=bool)


def write_aligned_text(folder: Path, text: AlignedText) -> None:
    """Write the file beside the encoder in ``folder``."""
    content = {"format": FORMAT, **asdict(text)}
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_aligned_text(folder: Path) -> AlignedText:
    """Read the file beside an aligned encoder.

    Raises:
        CheckpointError: There is none, or it is damaged or of another format.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} knows no text teacher: {FILE} is missing; give an encoder of `pointloom align`"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("format")
        if version != FORMAT:
            raise CheckpointError(f"{path}: format {version}, this version reads {FORMAT}; run `pointloom align` again")
        return AlignedText(**(content | {"words": tuple(content["words"])}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); run `pointloom align` again") from error


def all_words(captions: Iterable[str]) -> tuple[str, ...]:
    """Return every word of some captions, sorted."""
    return tuple(sorted({word for caption in captions for word in words_of(caption)}))
