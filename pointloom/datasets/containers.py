"""Objects that are rows of an HDF5 file: ``file.h5#12``."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import Card, wrong_folder


def read_labels(card: Card, folder: Path, variant: str, file: Path) -> NDArray[np.int64]:
    """Return the label of every object of a file; its ``data`` must be (N, P, 3).

    Raises:
        DataError: It is no HDF5 file, or ``data`` and ``label`` are missing or do not fit together.
    """
    import h5py

    try:
        with h5py.File(file, "r") as content:
            shape = content["data"].shape
            label = np.asarray(content["label"]).reshape(-1).astype(np.int64)
    except (OSError, KeyError) as error:
        raise wrong_folder(card, folder, variant, f"{file.name} cannot be read ({error})") from error
    if len(shape) != 3 or shape[2] != 3 or shape[0] != len(label):
        what = f"{file.name} has data of shape {shape} and {len(label)} labels, expected (N, P, 3) and N"
        raise wrong_folder(card, folder, variant, what)
    return label


def read_row(folder: Path, source: SourceObject, *keys: str) -> list[NDArray[Any] | None]:
    """Return one object's row of some arrays of its file, None for arrays that the file does not have.

    Raises:
        RejectedError: The file is damaged.
    """
    import h5py

    path, _, row = source.path.rpartition("#")
    try:
        with h5py.File(folder / path, "r") as content:
            return [np.asarray(content[key][int(row)]) if key in content else None for key in keys]
    except OSError as error:
        raise RejectedError("unreadable", str(error)) from error
