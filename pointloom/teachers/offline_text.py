"""An embedded text teacher: a bag of words, each word a fixed random direction.

It needs no download and knows no language. Two texts are alike exactly as far as they share words, rare words counting
more; "sofa" and "couch" have nothing in common. It can therefore name what occurs in its captions and nothing else: for
words that no training caption holds, its answer is chance by construction.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

VERSION = 1
_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Return the distinct words of a text in order: lower case, without a final plural s."""
    return list(dict.fromkeys(all_words(text)))


def all_words(text: str) -> list[str]:
    """Return every word of a text in order: lower case, without a final plural s."""
    words = [word.lower() for word in _WORD.findall(text)]
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words]


def words_in_order(texts: Sequence[str], dim: int) -> tuple[Float[np.ndarray, "n w d"], NDArray[np.bool_]]:
    """Return a vector for every word of every text, and which places hold a word.

    A word's vector is that of the word plus half of the one before it, turned by one channel, so that "chair left of
    the table" and "table left of the chair" differ.
    """
    split = [all_words(text) for text in texts]
    known = {word: row for row, word in enumerate(sorted({word for words in split for word in words}))}
    vectors = word_vectors(list(known), dim) / math.sqrt(dim) if known else np.zeros((0, dim), dtype=np.float32)
    found = np.zeros((len(texts), max(1, *map(len, split)) if split else 1, dim), dtype=np.float32)
    valid = np.zeros(found.shape[:2], dtype=bool)
    for row, words in enumerate(split):
        if words:
            own = vectors[[known[word] for word in words]]
            found[row, : len(words)] = own
            found[row, 1 : len(words)] += 0.5 * np.roll(own[:-1], 1, axis=1)
            valid[row, : len(words)] = True
    return found, valid


def word_vectors(words: Sequence[str], dim: int) -> Float[np.ndarray, "w {dim}"]:
    """Return one standard normal vector per word, made from a hash of the word alone.

    The bits of SHAKE-256 become pairs of uniform numbers and these, by Box and Muller's transform, normal ones, so that
    the vectors are the same on every machine and in every version of every library.
    """
    half = (dim + 1) // 2
    bits = b"".join(hashlib.shake_256(word.encode()).digest(8 * half) for word in words)
    uniform = (np.frombuffer(bits, dtype="<u4").reshape(len(words), 2, half) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(uniform[:, 0])), 2 * math.pi * uniform[:, 1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim].astype(np.float32)


class BagOfWords:
    """Texts as weighted sums of word vectors.

    The weight of a word is ``log((1 + N) / (1 + n))``, with n of N captions holding it (inverse document frequency),
    raised to ``idf_power``; words of all captions weigh next to nothing.

    Attributes:
        name: For people.
        identity: What decides its numbers; part of cache keys.
        dim: Width of the vectors.
        weights: Known words and their weights.
    """

    def __init__(self, weights: Mapping[str, float], *, dim: int, num_captions: int, idf_power: float) -> None:
        self.name = f"bag of words ({len(weights)} words, idf from {num_captions} captions)"
        self.weights = dict(weights)
        self.dim = dim
        self.identity = {
            "library": "pointloom",
            "teacher": "bag_of_words",
            "version": VERSION,
            "dim": dim,
            "idf_power": idf_power,
            "weights": self.weights,
        }
        self._arguments = {"dim": dim, "num_captions": num_captions, "idf_power": idf_power}
        self._unknown = math.log(1 + num_captions) ** idf_power
        self._row = {word: row for row, word in enumerate(self.weights)}
        self._vectors = word_vectors(list(self.weights), dim) * np.array(list(self.weights.values()))[:, None]

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Return the sums, not normalised.

        Words that no caption holds can only add noise, so they count only where a text has no other words; a text
        without any word is zero.
        """
        found = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            words = words_of(text)
            known = [self._row[word] for word in words if word in self._row]
            if known:
                found[row] = self._vectors[known].sum(axis=0)
            elif words:
                found[row] = self._unknown * word_vectors(words, self.dim).sum(axis=0)
        return found

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that no caption holds."""
        return [word for word in words_of(text) if word not in self._row]

    def num_truncated(self, texts: Sequence[str]) -> int:
        """Return 0: texts of any length are read whole."""
        return 0 * len(texts)

    def saved(self) -> dict[str, Any]:
        """Return JSON values from which ``load_bag_of_words`` makes the same teacher."""
        return {"teacher": "bag_of_words", "weights": self.weights, **self._arguments}


def fit_bag_of_words(captions: Iterable[str], *, dim: int, idf_power: float) -> BagOfWords:
    """Learn the words and their weights.

    Args:
        captions: Of training objects only.
        dim: Width of the vectors.
        idf_power: Exponent of the inverse document frequency.
    """
    count: Counter[str] = Counter()
    total = 0
    for caption in captions:
        count.update(words_of(caption))
        total += 1
    floor = 1e-3
    weights = {w: round(max(math.log((1 + total) / (1 + n)), floor) ** idf_power, 9) for w, n in sorted(count.items())}
    return BagOfWords(weights, dim=dim, num_captions=total, idf_power=idf_power)


def load_bag_of_words(saved: Mapping[str, Any]) -> BagOfWords:
    """Return the teacher that ``BagOfWords.saved`` describes."""
    arguments: dict[str, Any] = {key: saved[key] for key in ("dim", "num_captions", "idf_power")}
    return BagOfWords(saved["weights"], **arguments)
