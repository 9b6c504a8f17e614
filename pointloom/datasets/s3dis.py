"""S3DIS: scanned rooms of six areas with 13 semantic classes, as raw text or as one npy file per room."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.datasets.card import Card, find_root, wrong_folder
from pointloom.errors import DataError

CLASSES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board"),
    "clutter",
)
RAW = "Stanford3dDataset_v1.2_Aligned_Version"
NPY = "stanford_indoor3d"
NUM_ROOMS = {1: 44, 2: 40, 3: 23, 4: 49, 5: 68, 6: 48}
VARIANTS = ("raw", "npy")
_CONTROL = bytes(range(9)) + b"\x0b\x0c" + bytes(range(14, 32))
_TO_BLANK = bytes.maketrans(_CONTROL, b" " * len(_CONTROL))

CARD = Card(
    name="s3dis",
    title="S3DIS",
    task="semantic segmentation",
    size="272 rooms of 6 areas, 273 million points",
    licence="research, not commercial; the owner asks for a form",
    source=f"http://buildingparser.stanford.edu/dataset.html (form), then {RAW}.zip; also at https://cvg-data.inf.ethz.ch/s3dis",
    trees={
        "raw": f"{RAW}/\n  Area_1/conferenceRoom_1/Annotations/beam_1.txt     x y z r g b, one point per line\n  ...",
        "npy": f"{NPY}/\n  Area_1_conferenceRoom_1.npy     (N, 7): x y z r g b label\n  ...",
    },
    markers={"raw": "Area_*/*/Annotations", "npy": "Area_*_*.npy"},
    folders=(RAW, NPY),
    archives={},
)


@dataclass(frozen=True)
class Room:
    """One room.

    Attributes:
        name: ``Area_5_office_1``.
        area: 1 to 6.
        coord: (N, 3) float32 metres, +Z up, smallest coordinate of the room 0 on every axis.
        color: (N, 3) uint8.
        label: (N,) uint8, place in ``CLASSES``.
    """

    name: str
    area: int
    coord: NDArray[np.float32]
    color: NDArray[np.uint8]
    label: NDArray[np.uint8]


def find_rooms(folder: Path, variant: str) -> dict[str, Path]:
    """Return name to folder (raw) or file (npy) of every room, sorted by name.

    Raises:
        DataError: There is no room.
    """
    root = find_root(CARD, folder, variant)
    found = sorted(root.glob(CARD.markers[variant]))
    if variant == "npy":
        rooms = {path.stem: path for path in found}
    else:
        rooms = {f"{path.parent.parent.name}_{path.parent.name}": path for path in found}
    if odd := [name for name in rooms if not re.fullmatch(r"Area_\d_.+", name)]:
        raise wrong_folder(CARD, folder, variant, f"{odd[0]} is no room of an area")
    return rooms


def read_rooms(folder: Path, variant: str) -> Iterator[Room]:
    """Read one room after another.

    Raises:
        DataError: There is no room, or one is damaged.
    """
    for name, path in find_rooms(folder, variant).items():
        yield read_room(name, path)


def read_room(name: str, path: Path) -> Room:
    """Read one room.

    Raises:
        DataError: It is damaged or empty.
    """
    table = _read_npy(path) if path.suffix == ".npy" else _read_annotations(path)
    if len(table) == 0 or not np.isfinite(table).all():
        raise DataError(f"{path}: the room has no points, or points that are not finite")
    coord = table[:, :3] - table[:, :3].min(axis=0)
    return Room(
        name=name,
        area=int(name.split("_")[1]),
        coord=coord.astype(np.float32),
        color=np.clip(np.rint(table[:, 3:6]), 0, 255).astype(np.uint8),
        label=table[:, 6].astype(np.uint8),
    )


def _read_npy(path: Path) -> NDArray[np.float64]:
    try:
        table = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); get it again or make it from the raw text") from error
    if table.ndim != 2 or table.shape[1] != 7:
        raise DataError(f"{path}: expected (N, 7) with x y z r g b label, got {table.shape}")
    label = table[:, 6]
    if len(label) and not (np.isin(label, np.arange(len(CLASSES)))).all():
        raise DataError(f"{path}: labels must be 0 to {len(CLASSES) - 1}, got {label.min():g} to {label.max():g}")
    return table.astype(np.float64)


def _read_annotations(folder: Path) -> NDArray[np.float64]:
    """Read the pieces of a room; a piece of an unknown class (stairs) is clutter, as in the official conversion."""
    tables = []
    for path in sorted(folder.glob("*.txt")):
        piece = _read_text(path)
        name = path.stem.rpartition("_")[0]
        label = CLASSES.index(name if name in CLASSES else "clutter")
        tables.append(np.column_stack([piece, np.full(len(piece), label, dtype=np.float64)]))
    if not tables:
        raise DataError(f"{folder}: there are no pieces such as chair_1.txt in it")
    return np.concatenate(tables)


def _read_text(path: Path) -> NDArray[np.float64]:
    """Read x y z r g b; a stray control character, which the official data has in one file, counts as a blank."""
    data = path.read_bytes().translate(_TO_BLANK)
    try:
        table = np.loadtxt(BytesIO(data), dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected six numbers per line (x y z r g b); repair the line") from error
    if table.shape[1] != 6:
        raise DataError(f"{path}: expected six numbers per line (x y z r g b), got {table.shape[1]}")
    return table
