"""Read pickles that others made, without giving them the power that pickles have.

The field shares its few-shot folds and its cached clouds as pickles. A pickle may call any function while it is read;
here it may build arrays of numbers, lists, tuples, dicts, numbers and strings, and nothing else.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.errors import DataError


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Do what old pickles use ``_codecs.encode`` for: bytes that were written as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding!r}, which arrays never do")
    return text.encode("latin1")


def _allowed() -> Mapping[tuple[str, str], Callable[..., Any]]:
    """Return all that a pickle may call: what NumPy's arrays and numbers are made with, old and new names."""
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float32(0).__reduce__()[0]
    frombuffer: Any = np.empty(1).__reduce_ex__(5)[0]
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1,
    }
    for parent in ("numpy.core", "numpy._core"):
        table[f"{parent}.multiarray", "_reconstruct"] = reconstruct
        table[f"{parent}.multiarray", "scalar"] = scalar
        table[f"{parent}.numeric", "_frombuffer"] = frombuffer
    return table


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays, lists, tuples, dicts, numbers and strings."""

    _table = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function.

        Raises:
            UnpicklingError: The pickle asks for anything else.
        """
        try:
            return self._table[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array, list or number") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to the outside."""
        raise pickle.UnpicklingError(f"it refers to something outside of the file ({pid!r})")


def load_plain(path: Path) -> Any:
    """Read a pickle of plain values.

    Raises:
        DataError: The file is missing or damaged, or holds something that is not plain.
    """
    try:
        with path.open("rb") as file:
            value = PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path}: not read as a pickle of arrays, lists, dicts, numbers and strings ({error}); nothing else is "
            "ever read from a pickle, because it could run any program. Get the file again from its official source"
        ) from error
    if odd := _not_plain(value):
        raise DataError(f"{path}: expected arrays of numbers, lists, dicts, numbers and strings, got {odd}")
    return value


def _not_plain(value: Any) -> str | None:
    """Return the first thing in a nested value that is not plain, None if all is."""
    if isinstance(value, dict):
        return next((odd for v in value.values() if (odd := _not_plain(v))), None)
    if isinstance(value, list | tuple):
        return next((odd for v in value if (odd := _not_plain(v))), None)
    if isinstance(value, np.ndarray):
        return None if value.dtype.kind in "biuf" else f"an array of {value.dtype}"
    plain = value is None or isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating)
    return None if plain else f"{type(value).__module__}.{type(value).__name__}"


@dataclass(frozen=True)
class FoldPart:
    """Clouds of one side of a fold.

    Attributes:
        points: One (n, 6) float32 array per object, x y z and normal.
        label: (k,) int64 class in the fold, 0 to way - 1.
        original: (k,) int64 class in ModelNet40.
    """

    points: list[NDArray[np.float32]]
    label: NDArray[np.int64]
    original: NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One few-shot task: the objects to learn from and those to classify."""

    train: FoldPart
    test: FoldPart


def load_fold(path: Path) -> Fold:
    """Read one of the community's few-shot folds: a dict of ``train`` and ``test``, each a list of triples.

    Raises:
        DataError: The file is not such a fold.
    """
    content = load_plain(path)
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        got = f"the keys {sorted(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: expected a dict with train and test, got {got}")
    return Fold(train=_part(path, "train", content["train"]), test=_part(path, "test", content["test"]))


def _part(path: Path, name: str, items: Any) -> FoldPart:
    expected = f"{path}: {name} must be a list of (points of shape (n, 6), label, original label)"
    if not isinstance(items, list) or not items:
        raise DataError(f"{expected}, got {type(items).__name__} of {len(items) if isinstance(items, list) else '?'}")
    for i, item in enumerate(items):
        if not isinstance(item, list | tuple) or len(item) != 3:
            raise DataError(f"{expected}; object {i} is {type(item).__name__}")
        points = np.asarray(item[0])
        if points.ndim != 2 or points.shape[1] not in (3, 6) or len(points) == 0:
            raise DataError(f"{expected}; object {i} has points of shape {points.shape}")
    return FoldPart(
        points=[np.ascontiguousarray(item[0], dtype=np.float32) for item in items],
        label=np.array([int(item[1]) for item in items], dtype=np.int64),
        original=np.array([int(item[2]) for item in items], dtype=np.int64),
    )
