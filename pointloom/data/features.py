"""Features of the frozen teachers, read from disk; ``feature_files.py`` says how they lie there."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

from pointloom.data.feature_files import DESCRIPTION, FORMAT, SHARD_SIZE, FeatureInfo, FeaturesInfo, shard_path, unit
from pointloom.errors import DataError

if TYPE_CHECKING:
    import h5py


class FeatureArray:
    """Vectors of all objects on disk; indexing with rows or a slice reads them.

    Attributes:
        shape: (A, K, D) or (A, V, D).
    """

    def __init__(self, store: "FeatureStore", name: str, shape: tuple[int, int, int]) -> None:
        self._store = store
        self._name = name
        self.shape = shape
        self.dtype = np.dtype(np.float16)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "slice | NDArray[np.int64]") -> NDArray[np.float16]:
        where = np.arange(len(self))[rows]
        result = np.empty((len(where), *self.shape[1:]), dtype=self.dtype)
        for shard in np.unique(where // SHARD_SIZE):
            at = np.flatnonzero(where // SHARD_SIZE == shard)
            data = self._store.shard(int(shard))[self._name]["value"]
            for start, stop, some in _runs(where[at] % SHARD_SIZE):
                result[at[some]] = data[start:stop][where[at[some]] % SHARD_SIZE - start]
        return result


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Cut rows of one shard into nearly dense runs, because one read of many rows is far cheaper than many reads."""
    order = np.argsort(rows, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(rows[order]) > 8) + 1):
        yield int(rows[at[0]]), int(rows[at[-1]]) + 1, at


@dataclass(frozen=True)
class TextFeatures:
    """Captions of all objects through one text teacher.

    Attributes:
        value: (A, K, D) unit vectors, NaN where there is no caption.
        present: (A, K) where there is one.
        text_id: (A, K) equal numbers are equal texts; -1 where there is none.
    """

    value: FeatureArray
    present: Bool[np.ndarray, "a k"]
    text_id: Int64[np.ndarray, "a k"]


@dataclass(frozen=True)
class ImageFeatures:
    """Views of all objects through one image teacher.

    Attributes:
        value: (A, V, D) unit vectors, NaN where a view cannot be used.
        present: (A, V) where it can.
    """

    value: FeatureArray
    present: Bool[np.ndarray, "a v"]


class FeatureStore:
    """Read teacher features; shards are opened once per process, on first use.

    Attributes:
        path: Folder of the features.
        info: What ``features.json`` says.
        uids: (A,) objects, in the order of the prepared store.
        row_of: Row by uid.
    """

    def __init__(self, path: Path | str, *, dataset_digest: str | None = None) -> None:
        """Open the features.

        Args:
            path: Folder of the features.
            dataset_digest: Of the prepared store that they must belong to; None does not ask.

        Raises:
            DataError: There are no features, they are damaged, or they belong to another store.
        """
        self.path = Path(path)
        self.info = _read_info(self.path)
        if dataset_digest is not None and self.info.dataset_digest != dataset_digest:
            raise DataError(
                f"{self.path}: the features were made from another prepared store ({self.info.dataset_digest[:12]}, "
                f"expected {dataset_digest[:12]}); run `pointloom embed` again"
            )
        index = _read_index(self.path)
        self.uids: NDArray[np.str_] = np.array(index["uid"], dtype=np.str_)
        self.row_of = {uid: row for row, uid in enumerate(index["uid"])}
        self._texts: dict[str, list[str]] = dict(zip(index["uid"], index["texts"], strict=True))
        self._files: dict[tuple[int, int], h5py.File] = {}

    def __len__(self) -> int:
        return len(self.uids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}

    def names(self, modality: Literal["text", "image"]) -> list[str]:
        """Return the names of all text or image teachers."""
        return [teacher.name for teacher in self.info.teachers if teacher.modality == modality]

    def teacher(self, name: str) -> FeatureInfo:
        """Return the description of a teacher.

        Raises:
            DataError: There is none of this name.
        """
        for teacher in self.info.teachers:
            if teacher.name == name:
                return teacher
        known = ", ".join(teacher.name for teacher in self.info.teachers)
        raise DataError(f"{self.path}: no features {name!r}; known: {known}. Add the teacher to embed and run it again")

    def text(self, name: str) -> TextFeatures:
        """Return the captions through a text teacher."""
        self._expect(name, "text")
        ids = np.concatenate([file["text_id"][:] for file in self._shards()])
        return TextFeatures(self._array(name), self._whole(name, "present"), ids)

    def images(self, name: str) -> ImageFeatures:
        """Return the views through an image teacher."""
        self._expect(name, "image")
        return ImageFeatures(self._array(name), self._whole(name, "present"))

    def norms(self, name: str) -> Float32[np.ndarray, "a k"]:
        """Return the lengths that the vectors had; NaN where something is missing."""
        return self._whole(name, "norm")

    def read_text(
        self, name: str, rows: Int64[np.ndarray, " r"], which: Int64[np.ndarray, " r"]
    ) -> tuple[Float32[np.ndarray, "r d"], Bool[np.ndarray, " r"]]:
        """Return one caption of each of some objects, and where there is one; the others are zero.

        Args:
            name: Of the text teacher.
            rows: Objects.
            which: Number of the caption of each.
        """
        self._expect(name, "text")
        return self._read(name, rows, which)

    def read_images(
        self, name: str, rows: Int64[np.ndarray, " r"], which: Int64[np.ndarray, " r"]
    ) -> tuple[Float32[np.ndarray, "r d"], Bool[np.ndarray, " r"]]:
        """Return one view of each of some objects, and where it can be used; the others are zero.

        Args:
            name: Of the image teacher.
            rows: Objects.
            which: Number of the view of each.
        """
        self._expect(name, "image")
        return self._read(name, rows, which)

    def class_text(self, name: str) -> Float32[np.ndarray, "c d"]:
        """Return one unit vector per class of ``info.classes``: its prompts through a text teacher, averaged."""
        import h5py

        self._expect(name, "text")
        with h5py.File(self.path / "classes.h5", "r") as file:
            value: NDArray[np.float32] = file[name][:]
        return value

    def texts(self, uid: str) -> list[str]:
        """Return the captions of an object, best first."""
        return self._texts[uid]

    def reopen(self, name: str) -> dict[str, Any]:
        """Return what the loader of a text teacher needs."""
        self._expect(name, "text")
        content: dict[str, Any] = json.loads((self.path / "teachers" / f"{name}.json").read_text(encoding="utf-8"))
        return content

    def shard(self, number: int) -> "h5py.File":
        """Return an open shard.

        Raises:
            DataError: It cannot be read, or holds vectors of another teacher than ``features.json`` says.
        """
        import h5py

        key = (os.getpid(), number)
        if key not in self._files:
            path = shard_path(self.path, number)
            try:
                file = h5py.File(path, "r")
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error}); run `pointloom embed` again") from error
            for teacher in self.info.teachers:
                found = str(file[teacher.name].attrs["key"]) if teacher.name in file else "nothing"
                if found != teacher.key:
                    raise DataError(
                        f"{path}: stale features {teacher.name!r}: made with key {found[:12]}, {DESCRIPTION} says "
                        f"{teacher.key[:12]}; run `pointloom embed` again"
                    )
            self._files[key] = file
        return self._files[key]

    def _expect(self, name: str, modality: str) -> None:
        found = self.teacher(name).modality
        if found != modality:
            raise DataError(f"{self.path}: {name!r} is a teacher for {found}, not for {modality}")

    def _shards(self) -> "list[h5py.File]":
        return [self.shard(number) for number in range(-(-len(self) // SHARD_SIZE))]

    def _whole(self, name: str, part: str) -> NDArray[Any]:
        return np.concatenate([file[name][part][:] for file in self._shards()])

    def _array(self, name: str) -> FeatureArray:
        teacher = self.teacher(name)
        per_object = self.info.num_texts if teacher.modality == "text" else self.info.num_views
        return FeatureArray(self, name, (len(self), per_object, teacher.dim))

    def _read(
        self, name: str, rows: NDArray[np.int64], which: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        value = self._array(name)[rows][np.arange(len(rows)), which].astype(np.float32)
        present: NDArray[np.bool_] = np.isfinite(value[:, 0])
        value[~present] = 0
        return unit(value), present


def _read_info(path: Path) -> FeaturesInfo:
    file = path / DESCRIPTION
    if not file.is_file():
        raise DataError(f"{path}: no features here ({DESCRIPTION} is missing); run `pointloom embed` first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content.pop("format")
        content.pop("kind")
        if version != FORMAT:
            raise DataError(f"{file}: format {version}, expected {FORMAT}; run `pointloom embed` again")
        teachers = tuple(FeatureInfo(**teacher) for teacher in content["teachers"])
        return FeaturesInfo(**(content | {"teachers": teachers, "classes": tuple(content["classes"])}))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({error}); run `pointloom embed` again") from error


def _read_index(path: Path) -> dict[str, list[Any]]:
    from pyarrow import ArrowException, parquet

    try:
        table: dict[str, list[Any]] = parquet.read_table(path / "index.parquet").to_pydict()
    except (OSError, ArrowException) as error:
        raise DataError(f"{path / 'index.parquet'}: cannot be read ({error}); run `pointloom embed` again") from error
    return table
