"""Clouds with the vectors of frozen teachers: batches for alignment, a function of seed, epoch and step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointloom.data.feature_files import FeatureInfo, unit
from pointloom.data.features import FeatureStore
from pointloom.data.objects import ObjectLoader
from pointloom.errors import DataError, ParamsError
from pointloom.structures import AlignBatch

CACHE_BYTES = 2**30


@dataclass(frozen=True)
class ImageTeacher:
    """One vision model and the kinds of pictures it has looked at.

    Attributes:
        name: Name of the model, the entries' name without the kind of picture.
        dim: Width of its vectors.
        entries: Names in the feature store, one per kind of picture (RGB, depth).
    """

    name: str
    dim: int
    entries: tuple[str, ...]


def choose_teachers(
    features: FeatureStore, *, text: str | None, images: Sequence[str] | None
) -> tuple[FeatureInfo, list[ImageTeacher]]:
    """Return the text teacher and the image teachers to align with; entries of one model form one teacher.

    Args:
        features: Cached features.
        text: Name of the text teacher, None where there is only one.
        images: Names of entries of image teachers, None for all.

    Raises:
        ParamsError: A name is unknown, or there are several text teachers and none is named.
    """
    if text is None and len(features.names("text")) != 1:
        raise ParamsError(
            f"text_teacher must name one of the text teachers in {features.path}: {_listed(features, 'text')}"
        )
    chosen_text = _find(features, text or features.names("text")[0], "text")
    by_model: dict[str, list[FeatureInfo]] = {}
    for name in features.names("image") if images is None else images:
        entry = _find(features, name, "image")
        shared = name.removesuffix(f"_{entry.source}")
        others = by_model.get(shared, [])
        same = all((other.model, other.dim) == (entry.model, entry.dim) for other in others)
        by_model.setdefault(shared if same else name, []).append(entry)
    return chosen_text, [
        ImageTeacher(name=name, dim=entries[0].dim, entries=tuple(entry.name for entry in entries))
        for name, entries in by_model.items()
    ]


def _find(features: FeatureStore, name: str, modality: Literal["text", "image"]) -> FeatureInfo:
    if name not in features.names(modality):
        raise ParamsError(f"{features.path} has no {modality} teacher {name!r}; it has {_listed(features, modality)}")
    return features.teacher(name)


def _listed(features: FeatureStore, modality: Literal["text", "image"]) -> str:
    return ", ".join(features.names(modality)) or "none"


def described(
    features: FeatureStore, rows: NDArray[np.int64], *, images: Sequence[ImageTeacher], has_text: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return (R,) which objects have a text (``has_text``) or a view; rows and images as for ``TeacherVectors``."""
    found = has_text.copy()
    for teacher in images:
        for entry in teacher.entries:
            found |= np.any(features.images(entry).present[rows], axis=1)
    return found


class TeacherVectors:
    """What the teachers say about some objects: kept in memory where it fits, read by rows where not.

    Args:
        features: Cached features.
        rows: (R,) rows of the feature store, which are those of the prepared store.
        text: Name of the text teacher.
        images: Image teachers.
        usable: (R, K) captions that may be used, None for all.
        top_caption: Use the best usable caption only instead of drawing one.
        class_of: (R,) class whose name is the only text of each object, -1 for none; None for captions.
    """

    def __init__(
        self,
        features: FeatureStore,
        rows: NDArray[np.int64],
        *,
        text: str,
        images: Sequence[ImageTeacher],
        usable: NDArray[np.bool_] | None,
        top_caption: bool,
        class_of: NDArray[np.int64] | None = None,
    ) -> None:
        self.features = features
        self.rows = rows
        self.text = text
        self.images = list(images)
        self.top_caption = top_caption
        entries = [entry for teacher in images for entry in teacher.entries]
        self.class_of = class_of
        if class_of is None:
            captions = features.text(text)
            self.text_present = captions.present[rows] if usable is None else captions.present[rows] & usable
            self.text_id = captions.text_id[rows]
        else:
            self.text_present, self.text_id = class_of[:, None] >= 0, class_of[:, None]
        self.image_present = {entry: features.images(entry).present[rows] for entry in entries}
        views = np.stack(list(self.image_present.values())) if entries else np.zeros((1, len(rows), 1), dtype=bool)
        self.any_view: NDArray[np.bool_] = np.any(views, axis=0)
        self._class_text = features.class_text(text)
        self._cache = self._load()

    def draw_caption(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one usable caption per object, 0 where there is none."""
        present = self.text_present[chosen]
        return present.argmax(1) if self.top_caption else _draw_one(present, rng)

    def draw_view(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one valid view per object, 0 where there is none."""
        return _draw_one(self.any_view[chosen], rng)

    def draw_entry(
        self, teacher: ImageTeacher, chosen: NDArray[np.int64], view: NDArray[np.int64], coin: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return which entry of a teacher to use per object: the coin's, or another one where that has no vector."""
        present = np.stack([self.image_present[entry][chosen, view] for entry in teacher.entries], axis=1)
        drawn = (coin * len(teacher.entries)).astype(np.int64)
        return np.where(np.take_along_axis(present, drawn[:, None], 1)[:, 0], drawn, present.argmax(1))

    def read(self, entry: str, chosen: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (C, D) unit vectors of one caption or view per object; what is missing has unspecified values."""
        if entry == self.text and self.class_of is not None:
            return self._class_text[self.class_of[chosen]]
        if entry in self._cache:
            return self._cache[entry][chosen, which]
        read = self.features.read_text if entry == self.text else self.features.read_images
        return read(entry, self.rows[chosen], which)[0]

    def _load(self) -> dict[str, NDArray[np.float32]]:
        arrays = {self.text: self.features.text(self.text).value} if self.class_of is None else {}
        arrays |= {entry: self.features.images(entry).value for entry in self.image_present}
        if sum(4 * len(self.rows) * array.shape[1] * array.shape[2] for array in arrays.values()) > CACHE_BYTES:
            return {}
        return {name: unit(np.nan_to_num(array[self.rows].astype(np.float32))) for name, array in arrays.items()}


def _draw_one(present: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random true column per row, 0 where there is none."""
    keys = rng.random(present.shape)
    return np.where(present, keys, -1.0).argmax(1) * present.any(1)


class TripletLoader:
    """Shuffled training batches of clouds with one caption and one view each."""

    def __init__(self, objects: ObjectLoader, vectors: TeacherVectors) -> None:
        """Join clouds and teacher vectors of the same objects, in the same order.

        Raises:
            DataError: The numbers of objects differ.
        """
        if len(objects.rows) != len(vectors.rows):
            raise DataError(f"{len(objects.rows)} clouds and teacher vectors of {len(vectors.rows)} objects")
        self.objects = objects
        self.vectors = vectors
        self._position = np.full(len(objects.store.labels), -1, dtype=np.int64)
        self._position[objects.rows] = np.arange(len(objects.rows))

    def __len__(self) -> int:
        """Training steps per epoch."""
        return len(self.objects)

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[AlignBatch]:
        """Yield shuffled, augmented training batches of one epoch."""
        for step, points in enumerate(self.objects.batches(epoch, first_step=first_step), start=first_step):
            chosen = self._position[points.row.numpy()]
            rng = np.random.default_rng([self.objects.seed, epoch, step + 1, 1])
            caption = self.vectors.draw_caption(chosen, rng)
            images, has_image = self._draw_images(chosen, rng)
            has_text = self.vectors.text_present[chosen, caption]
            text = self.vectors.read(self.vectors.text, chosen, caption)
            yield AlignBatch(
                points=points,
                text=_masked(text, has_text),
                has_text=torch.from_numpy(has_text),
                text_id=torch.from_numpy(np.where(has_text, self.vectors.text_id[chosen, caption], -1)),
                images=images,
                has_image=has_image,
            )

    def _draw_images(
        self, chosen: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Draw one view per object and, for all teachers alike, which kind of picture of it."""
        view, coin = self.vectors.draw_view(chosen, rng), rng.random(len(chosen))
        images, has_image = {}, {}
        for teacher in self.vectors.images:
            entry = self.vectors.draw_entry(teacher, chosen, view, coin)
            value = np.zeros((len(chosen), teacher.dim), dtype=np.float32)
            present = np.zeros(len(chosen), dtype=bool)
            for number, name in enumerate(teacher.entries):
                at = np.flatnonzero(entry == number)
                value[at] = self.vectors.read(name, chosen[at], view[at])
                present[at] = self.vectors.image_present[name][chosen[at], view[at]]
            images[teacher.name], has_image[teacher.name] = _masked(value, present), torch.from_numpy(present)
        return images, has_image


def _masked(value: NDArray[np.float32], present: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.where(present[:, None], value, np.float32(0)))
