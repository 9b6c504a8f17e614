"""Captions by BLIP-2: several sentences per rendered view, ranked by how well CLIP finds them to fit the view.

ULIP-2 (Xue et al., 2024) introduced the recipe. Its released captions have neither scores nor an order; these
have both.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from pointloom.captioners.blip2_model import Blip2Model
from pointloom.captioners.cleaning import ClassMask, is_usable, tidy
from pointloom.data.captions import Caption, CaptionsInfo, Described
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.errors import DataError


@runtime_checkable
class Ranker(Protocol):
    """A model that puts views and sentences into one space."""

    @property
    def name(self) -> str:
        """Model and weights, for people."""
        ...

    def encode_image(self, views: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Return features of pictures."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Return features of sentences."""
        ...


class Blip2Captioner:
    """Describe objects by what BLIP-2 says about their views.

    Args:
        store: Prepared objects.
        views: Their rendered views.
        model: Writes the sentences.
        ranker: Scores them.
        prompt: Text that the model continues.
        samples: Sentences per view.
        num_views: At most so many valid views per object, spread evenly over them.
        top_p: Of nucleus sampling.
        max_new_tokens: Longest sentence, in tokens.
        batch_size: Views per forward pass.
        seed: Of sampling.
        category: Whether sentences may name a category. Where they may not, class words become "object" before the
            sentences are ranked.

    Attributes:
        info: Description of the captions, without digests.
        block_size: Objects that are described at a time; sampling does not depend on other blocks.
    """

    block_size = 32

    def __init__(
        self,
        store: ObjectStore,
        views: ViewStore,
        model: Blip2Model,
        ranker: Ranker,
        *,
        prompt: str,
        samples: int,
        num_views: int,
        top_p: float,
        max_new_tokens: int,
        batch_size: int,
        seed: int,
        category: bool,
    ) -> None:
        self._store = store
        self._views = views
        self._model = model
        self._ranker = ranker
        self._prompt = prompt
        self._sampling: dict[str, Any] = {"samples": samples, "top_p": top_p, "max_new_tokens": max_new_tokens}
        self._num_views = num_views
        self._batch_size = batch_size
        self._mask = None if category else ClassMask([*store.info.classes, *sorted(set(store.categories) - {""})])
        self.info = CaptionsInfo(
            captioner="blip2",
            model=model.name,
            model_digest=model.weights_sha256,
            prompt=prompt,
            seed=seed,
            category=category,
            ranker=ranker.name,
            views_digest=views.info.digest,
        )

    def __call__(self, rows: NDArray[np.int64]) -> list[Described]:
        """Return captions of some rows of the store, best first, and why there are none where there are none."""
        problems: dict[int, tuple[str, str]] = {}
        found: dict[int, list[Caption]] = {int(row): [] for row in rows}
        stream = self._pictures(rows, problems)
        number = 0
        while batch := list(islice(stream, self._batch_size)):
            name = f"{self.info.seed}/{self._store.uids[rows[0]]}/{number}"
            pictures = np.stack([picture for _, _, picture in batch])
            texts = self._write(pictures, seed=zlib.crc32(name.encode()))
            scores = self._rank(pictures, texts)
            for (row, view, _), sentences, cosines in zip(batch, texts, scores, strict=True):
                found[row].extend(
                    Caption(text, float(score), view, is_usable(text, prompt=self._prompt))
                    for text, score in zip(sentences, cosines, strict=True)
                )
            number += 1
        return [self._described(int(row), found[int(row)], problems) for row in rows]

    def _pictures(
        self, rows: NDArray[np.int64], problems: dict[int, tuple[str, str]]
    ) -> Iterator[tuple[int, int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield row, view and picture; what cannot be described is noted in ``problems``."""
        for row in map(int, rows):
            at = self._views.row_of.get(str(self._store.uids[row]))
            valid = np.flatnonzero(self._views.valid[at]) if at is not None else np.empty(0, dtype=np.int64)
            if at is None or len(valid) == 0:
                problems[row] = ("no_view", "no rendered view shows the object; see failures.jsonl of the views")
                continue
            chosen = valid[np.linspace(0, len(valid) - 1, min(self._num_views, len(valid))).round().astype(np.int64)]
            try:
                pictures = self._views.rgb(at, chosen.tolist())
            except DataError as error:
                problems[row] = ("damaged_view", str(error))
                continue
            for view, picture in zip(chosen, pictures, strict=True):
                yield row, int(view), picture

    def _write(self, pictures: UInt8[np.ndarray, "b h w 3"], *, seed: int) -> list[list[str]]:
        texts = self._model.sample(pictures, prompt=self._prompt, seed=seed, **self._sampling)
        return [[tidy(self._mask(text) if self._mask else text) for text in sentences] for sentences in texts]

    def _rank(self, pictures: UInt8[np.ndarray, "b h w 3"], texts: list[list[str]]) -> Float[np.ndarray, "b s"]:
        """Return the cosine of every sentence with its picture."""
        different = sorted({text for sentences in texts for text in sentences})
        number = {text: at for at, text in enumerate(different)}
        image, text = _unit(self._ranker.encode_image(pictures)), _unit(self._ranker.encode_text(different))
        chosen = np.array([[number[text] for text in sentences] for sentences in texts])
        return np.einsum("bd,bsd->bs", image, text[chosen])

    def _described(self, row: int, captions: list[Caption], problems: dict[int, tuple[str, str]]) -> Described:
        ranked = sorted(captions, key=lambda caption: -(caption.score or 0.0))
        if row not in problems and not any(caption.ok for caption in ranked):
            problems[row] = ("no_caption", f"all {len(ranked)} sentences repeat the prompt or themselves")
        return Described(ranked, problems.get(row))


def _unit(value: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return value / np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
