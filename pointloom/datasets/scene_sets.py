"""What is common to data sets of scenes: what was found, what a user may choose, and how arrays are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scenes import Scene
from pointloom.datasets.card import Card, read_lines
from pointloom.errors import DataError, ParamsError


@dataclass(frozen=True)
class SceneItem:
    """One scene to prepare.

    Attributes:
        name: Unique in the data set.
        path: The file or folder that its failure would name.
        split: ``train``, ``test``, ``pretrain``, or empty where only lists can tell.
        group: Area or building.
    """

    name: str
    path: Path
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class FoundScenes:
    """The scenes of a data set in a folder.

    Attributes:
        items: In a fixed order.
        read: Reads one of them; the split and the group are those of the item.
        classes: Names of the points' classes in label order.
        box_classes: Names of the boxes' classes in label order, empty without boxes.
        notes: Sentences that a reader of the report should know.
    """

    items: list[SceneItem]
    read: Callable[[SceneItem], Scene]
    classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    notes: list[str]


@dataclass(frozen=True)
class SceneChoices:
    """What a user may choose about scenes, as far as a data set leaves a choice.

    Attributes:
        aligned: Whether the axes are turned along the walls; None where the user does not say.
        meters: Length of a unit of the files.
        up: Up axis of the files, ``auto`` for the data set's own.
        sentences: ScanRefer's JSON files.
    """

    aligned: bool | None = None
    meters: float = 1.0
    up: str = "auto"
    sentences: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SceneDataset:
    """A data set of scenes, and how to read it.

    Attributes:
        card: For people.
        variants: Layouts or label sets, at least one.
        find: Folder, variant and choices to the scenes, without loading them.
    """

    card: Card
    variants: tuple[str, ...]
    find: Callable[[Path, str, SceneChoices], FoundScenes]


def check_choices(title: str, choices: SceneChoices, *allowed: str, aligned: bool | None = None) -> None:
    """Check that nothing was chosen which the data set leaves no choice about.

    Args:
        title: Of the data set.
        choices: What was chosen.
        allowed: Names of fields about which there is a choice.
        aligned: What the data set is, where there is no choice.

    Raises:
        ParamsError: Something was chosen that the data set is not or does not have.
    """
    if "aligned" not in allowed and choices.aligned not in (None, aligned):
        kind = "aligned with the walls" if aligned else "not aligned with the walls"
        raise ParamsError(f"prepare.scenes.aligned: {title} is {kind} and cannot be had otherwise; remove it")
    if "meters" not in allowed and choices.meters != 1:
        raise ParamsError(f"prepare.scenes.unit: {title} is in metres; remove it")
    if "up" not in allowed and choices.up not in ("auto", "z"):
        raise ParamsError(f"prepare.up: {title} has +Z up; set it to auto")
    if "sentences" not in allowed and choices.sentences:
        raise ParamsError(f"prepare.scenes.sentences: no sentences are known for {title}; remove them")


def check_sentences(choices: SceneChoices) -> None:
    """Check that ScanRefer's sentences go with aligned scans: its boxes and its words for directions are theirs.

    Raises:
        ParamsError: They do not.
    """
    if choices.sentences and not choices.aligned:
        raise ParamsError(
            "prepare.scenes.sentences: ScanRefer's boxes are those of scans turned along the walls; set "
            "prepare.scenes.aligned: true (source scannet), or leave the sentences out"
        )


def read_array(path: Path, *, columns: int | None = None, rows: int | None = None) -> NDArray[Any]:
    """Read numbers from an npy file.

    Args:
        path: The file.
        columns: Expected width; None for a vector, which may also be stored as one column.
        rows: Expected length; None takes any.

    Raises:
        RejectedError: The file is missing or damaged, or its shape is another.
    """
    if not path.is_file():
        raise RejectedError("missing_file", f"{path} is not there")
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RejectedError("unreadable", f"{path}: {error}") from error
    if columns is None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    expected = f"({'N' if rows is None else rows}{'' if columns is None else f', {columns}'})"
    good = array.ndim == (1 if columns is None else 2) and array.dtype.kind in "fiub"
    if not good or (columns is not None and array.shape[1] != columns) or (rows is not None and len(array) != rows):
        raise RejectedError(
            "unreadable", f"{path}: expected numbers of shape {expected}, got {array.dtype} {array.shape}"
        )
    return array


def as_labels(path: Path, array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return labels as integers.

    Raises:
        RejectedError: Some are no whole numbers, or too large.
    """
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise RejectedError("wrong_labels", f"{path}: labels must be whole numbers")
    if len(array) and not limits.min <= array.min() <= array.max() <= limits.max:
        raise RejectedError(
            "wrong_labels", f"{path}: labels are {array.min()} to {array.max()}, more than {dtype} holds"
        )
    return array.astype(dtype)


def as_colors(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return colours of 0 to 255 as bytes.

    Raises:
        RejectedError: They are from 0 to 1, and would all become black.
    """
    values = np.nan_to_num(array.astype(np.float64))
    if values.max(initial=0) <= 1 and (values % 1 > 0).any():
        raise RejectedError(
            "wrong_colors", f"colours go up to {values.max():g}, expected 0 to 255; multiply the files' colours by 255"
        )
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def map_labels(path: Path, ids: NDArray[Any], table: Sequence[int], *, highest: int) -> NDArray[np.int16]:
    """Return the place of every id in ``table``, -1 for ids that are not in it.

    Raises:
        RejectedError: An id is below 0 or above ``highest``.
    """
    values = as_labels(path, ids, "int64")
    if len(values) and not 0 <= values.min() <= values.max() <= highest:
        raise RejectedError(
            "wrong_labels", f"{path}: ids are {values.min()} to {values.max()}, expected 0 to {highest}"
        )
    place = np.full(highest + 1, -1, dtype=np.int16)
    place[list(table)] = np.arange(len(table), dtype=np.int16)
    return place[values]


def find_beside(folder: Path, name: str) -> Path | None:
    """Return a file of the data set's own lists: in the folder, its parent, or their usual sub-folders."""
    for place in (folder, folder.parent):
        for sub_folder in ("", "meta_data", "Tasks/Benchmark"):
            if (path := place / sub_folder / name).is_file():
                return path
    return None


def official_splits(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Return name to split from the official lists that are there.

    Args:
        folder: Looked in and around.
        files: Split to the name of its list.
    """
    found = {split: path for split, name in files.items() if (path := find_beside(folder, name)) is not None}
    return {name: split for split, path in found.items() for name in read_lines(path)}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RejectedError: It is missing or damaged.
    """
    import json

    if not path.is_file():
        raise RejectedError("missing_file", f"{path} is not there")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RejectedError("unreadable", f"{path}: {error}") from error


def decided(items: list[SceneItem], what: str) -> list[SceneItem]:
    """Return the items if all have a split.

    Raises:
        DataError: Some have none.
    """
    if open_items := [item.name for item in items if not item.split]:
        raise DataError(
            f"{len(open_items)} scenes such as {open_items[0]} are in no split: {what}, or set prepare.train_list and "
            "prepare.test_list to files with one name per line"
        )
    return items
