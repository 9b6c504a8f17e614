"""The search index that an ``align`` stage leaves behind: one embedding per object, in the space of the text teacher.

``index.json`` says what the embeddings were made with, ``index.npz`` holds ``uid`` (A,), ``split`` (A,), ``label``
(A,), ``embedding`` (A, D) unit vectors and ``feature`` (A, d). Embeddings are read in blocks, so that a search over a
million objects needs the memory of one block.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped
from numpy.lib import format as npy
from numpy.typing import NDArray

from pointloom.errors import DataError

FORMAT = 1
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class IndexInfo:
    """What the embeddings of an index were made with.

    Attributes:
        encoder_sha256: Weights of the aligned encoder.
        dataset_digest: Store whose objects were embedded.
        features_digest: Cached teacher features that the encoder was aligned with.
        text_teacher: Name of the text teacher in those features.
        features: Folder of the features, relative to the folder of the index.
    """

    encoder_sha256: str
    dataset_digest: str
    features_digest: str
    text_teacher: str
    features: str


def write_index(
    folder: Path,
    info: IndexInfo,
    *,
    uid: Shaped[np.ndarray, " a"],
    split: Shaped[np.ndarray, " a"],
    label: Int64[np.ndarray, " a"],
    embedding: Float32[np.ndarray, "a d"],
    feature: Float32[np.ndarray, "a c"],
) -> None:
    """Write an index into an existing folder; the caller puts the folder in place.

    Args:
        folder: Where ``index.json`` and ``index.npz`` go.
        info: What the embeddings were made with.
        uid: Objects, as in the prepared store.
        split: ``train``, ``test`` or ``pretrain`` per object.
        label: Class per object, -1 where unknown.
        embedding: Unit vectors in the space of the text teacher.
        feature: Pooled features of the encoder.
    """
    np.savez(folder / "index.npz", uid=uid, split=split, label=label, embedding=embedding, feature=feature)
    content = {"format": FORMAT, "kind": "index", **asdict(info)}
    (folder / "index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


class ShapeIndex:
    """An index on disk; names are in memory, embeddings are not.

    Attributes:
        path: Folder of the index.
        info: What ``index.json`` says.
        uids: (A,) objects.
        splits: (A,) ``train``, ``test`` or ``pretrain``.
        labels: (A,) class per object, -1 where unknown.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the index.

        Raises:
            DataError: There is no index, or it is damaged or of another format.
        """
        self.path = Path(path)
        self.info = _read_info(self.path / "index.json")
        self.uids: NDArray[np.str_] = self._column("uid")
        self.splits: NDArray[np.str_] = self._column("split")
        self.labels: NDArray[np.int64] = self._column("label")

    def __len__(self) -> int:
        return len(self.uids)

    def blocks(
        self, rows: int | None = None, *, name: Literal["embedding", "feature"] = "embedding"
    ) -> Iterator[Float32[np.ndarray, "r d"]]:
        """Yield embeddings or encoder features, at most ``rows`` (65,536) at a time, in the order of ``uids``.

        Raises:
            DataError: The file is damaged or has another number of rows.
        """
        path, done = self.path / "index.npz", 0
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
                count, dim, dtype = _read_header(stream)
                while done < count:
                    size = min(rows or BLOCK_ROWS, count - done)
                    data = stream.read(size * dim * dtype.itemsize)
                    yield np.frombuffer(data, dtype=dtype).reshape(size, dim).astype(np.float32, copy=False)
                    done += size
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from error
        if done != len(self):
            raise _damaged(path, f"{done} rows of {name} for {len(self)} objects")

    def search(
        self, query: Float32[np.ndarray, " d"], *, allowed: Bool[np.ndarray, " a"], top: int
    ) -> tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
        """Return rows and cosines of the objects nearest to a unit vector, best first; ties keep their order.

        Args:
            query: Unit vector in the space of the text teacher.
            allowed: Objects that may be found.
            top: Largest number of objects.

        Raises:
            DataError: The query has another dimension than the embeddings.
        """
        return nearest_rows(self._checked(query), query, allowed=allowed, top=top)

    def rows(
        self, rows: Int64[np.ndarray, " r"], *, name: Literal["embedding", "feature"] = "embedding"
    ) -> Float32[np.ndarray, "r d"]:
        """Return the embeddings or the encoder's features of some objects."""
        found, start = np.empty((len(rows), 0), dtype=np.float32), 0
        for block in self.blocks(name=name):
            found = found if start else np.empty((len(rows), block.shape[1]), dtype=np.float32)
            inside = (rows >= start) & (rows < start + len(block))
            found[inside] = block[rows[inside] - start]
            start += len(block)
        return found

    def _checked(self, query: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        for block in self.blocks():
            if block.shape[1] != len(query):
                raise DataError(
                    f"{self.path / 'index.npz'}: embeddings have {block.shape[1]} values, the query has {len(query)}; "
                    "the encoder was aligned with another text teacher: run `pointloom run` again"
                )
            yield block

    def _column(self, name: str) -> NDArray[Any]:
        path = self.path / "index.npz"
        try:
            with np.load(path, allow_pickle=False) as archive:
                return archive[name]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _damaged(path, error) from error


def nearest_rows(
    blocks: Iterable[NDArray[np.float32]], query: NDArray[np.float32], *, allowed: NDArray[np.bool_], top: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return rows and products with ``query`` of the ``top`` best allowed rows over all blocks, best first."""
    rows, scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    start = 0
    for block in blocks:
        found = np.flatnonzero(allowed[start : start + len(block)])
        score = (block @ query)[found]
        rows = np.concatenate([rows, found + start])
        scores = np.concatenate([scores, score])
        if len(scores) > top:  # everything that ties with the last place stays, so that the earlier row wins below
            kept = scores >= np.partition(scores, len(scores) - top)[len(scores) - top]
            rows, scores = rows[kept], scores[kept]
        start += len(block)
    order = np.argsort(-scores, kind="stable")[:top]
    return rows[order], scores[order]


def _read_header(stream: Any) -> tuple[int, int, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    if len(shape) != 2 or by_column or dtype.kind != "f":
        raise ValueError(f"the array is {dtype} {shape}, expected rows of floating-point numbers")
    return int(shape[0]), int(shape[1]), dtype


def _read_info(path: Path) -> IndexInfo:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("format")
        content.pop("kind", None)
        if version != FORMAT:
            raise DataError(f"{path}: format {version}, expected {FORMAT}; run `pointloom align` again")
        return IndexInfo(**content)
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent}: no search index here (index.json is missing); run `pointloom align`"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> DataError:
    return DataError(f"{path}: cannot be used ({error}); run `pointloom align` again")
