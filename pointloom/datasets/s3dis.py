"""S3DIS: scanned rooms of six areas with 13 classes, as raw text, one npy file per room, or in Pointcept's layout."""

import re
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scene_checks import boxes_of_instances
from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.datasets.card import Card, find_root, wrong_folder
from pointloom.datasets.pointcept import read_folder
from pointloom.datasets.scene_sets import FoundScenes, SceneChoices, SceneDataset, SceneItem, as_colors, check_choices
from pointloom.errors import DataError, ParamsError

CLASSES = (
    *("ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board"),
    "clutter",
)
RAW = "Stanford3dDataset_v1.2_Aligned_Version"
NOT_ALIGNED = "Stanford3dDataset_v1.2"
NPY = "stanford_indoor3d"
NUM_ROOMS = {1: 44, 2: 40, 3: 23, 4: 49, 5: 68, 6: 48}
VARIANTS = ("raw", "npy", "pointcept")
BOX_CLASSES = ("table", "chair", "sofa", "bookcase", "board")
"""Furniture, the classes that detection on S3DIS uses."""
TEST_AREA = "Area_5"
_CONTROL = bytes(range(9)) + b"\x0b\x0c" + bytes(range(14, 32))
_TO_BLANK = bytes.maketrans(_CONTROL, b" " * len(_CONTROL))

CARD = Card(
    name="s3dis",
    title="S3DIS",
    task="semantic and instance segmentation",
    size="272 rooms of 6 areas, 273 million points",
    licence="research, not commercial; the owner asks for a form",
    source=f"http://buildingparser.stanford.edu/dataset.html (form), then {RAW}.zip; also at https://cvg-data.inf.ethz.ch/s3dis",
    trees={
        "raw": f"{RAW}/\n  Area_1/conferenceRoom_1/Annotations/beam_1.txt     x y z r g b, one point per line\n  ...",
        "npy": f"{NPY}/\n  Area_1_conferenceRoom_1.npy     (N, 7): x y z r g b label\n  ...",
        "pointcept": "s3dis/\n  Area_1/conferenceRoom_1/{coord,color,segment,instance,normal}.npy\n"
        "  ...     (normal is optional)",
    },
    markers={"raw": "Area_*/*/Annotations", "npy": "Area_*_*.npy", "pointcept": "Area_*/*/segment.npy"},
    folders=(RAW, NOT_ALIGNED, NPY, "s3dis"),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all rooms; Area 5 is for testing unless lists say otherwise.

    They are aligned, but for the folder that has the name of the other version, and where the user says so: Pointcept
    converts that version, and turns the rooms if it is asked to.

    Raises:
        DataError: There is no room.
        ParamsError: The user calls the other version aligned.
    """
    check_choices(CARD.title, choices, "aligned")
    root = find_root(CARD, folder, variant)
    aligned = root.name != NOT_ALIGNED if choices.aligned is None else choices.aligned
    if aligned and root.name == NOT_ALIGNED:
        raise ParamsError(
            f"prepare.scenes.aligned: {root} is the version that is not aligned; take {RAW}, or say false"
        )
    found = sorted(root.glob(CARD.markers[variant]))
    if variant == "npy":
        rooms = {path.stem: path for path in found}
    else:
        rooms = {f"{path.parent.parent.name}_{path.parent.name}": path.parent for path in found}
    if odd := [name for name in rooms if not _is_room(name)]:
        raise wrong_folder(CARD, folder, variant, f"{odd[0]} is no room of an area")
    items = []
    for name, path in rooms.items():
        area = name[: len("Area_1")]
        items.append(SceneItem(name, path, "test" if area == TEST_AREA else "train", group=area))
    num, expected = len(items), sum(NUM_ROOMS.values())
    notes = [] if num == expected else [f"The official data has {expected} rooms, this has {num}."]

    def read(item: SceneItem) -> Scene:
        return read_room(item, aligned=aligned)

    return FoundScenes(items, read, CLASSES, BOX_CLASSES, notes)


def read_room(item: SceneItem, *, aligned: bool) -> Scene:
    """Read one room; its smallest coordinate is 0 on every axis.

    The npy layout has no instances, and so no boxes.

    Raises:
        RejectedError: It is damaged or empty.
    """
    if (item.path / "coord.npy").is_file():
        scene = read_folder(item, segment="segment.npy", aligned=aligned)
        scene = replace(scene, coord=scene.coord - scene.coord.min(axis=0, initial=np.inf))
        return replace(scene, boxes=_boxes(scene))
    raw = item.path.is_dir()
    table = _read_annotations(item.path / "Annotations") if raw else _read_npy(item.path)
    if len(table) == 0 or not np.isfinite(table).all():
        raise RejectedError("not_finite" if len(table) else "empty", f"{item.path}: no points, or some are not finite")
    scene = Scene(
        name=item.name,
        coord=(table[:, :3] - table[:, :3].min(axis=0)).astype(np.float32),
        color=as_colors(table[:, 3:6]),
        normal=None,
        segment=table[:, 6].astype(np.int16),
        instance=table[:, 7].astype(np.int32),
        split=item.split,
        group=item.group,
        aligned=aligned,
    )
    return replace(scene, boxes=_boxes(scene)) if raw else scene


def _boxes(scene: Scene) -> SceneBoxes:
    return boxes_of_instances(scene, classes=[CLASSES.index(name) for name in BOX_CLASSES])


def _read_npy(path: Path) -> NDArray[np.float64]:
    try:
        table = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RejectedError(
            "unreadable", f"{path}: cannot be read ({error}); get it again or make it from the raw text"
        ) from error
    if table.ndim != 2 or table.shape[1] != 7:
        raise RejectedError("unreadable", f"{path}: expected (N, 7) with x y z r g b label, got {table.shape}")
    label = table[:, 6]
    if len(label) and not (np.isin(label, np.arange(len(CLASSES)))).all():
        what = f"labels must be 0 to {len(CLASSES) - 1}, got {label.min():g} to {label.max():g}"
        raise RejectedError("wrong_labels", f"{path}: {what}")
    return np.column_stack([table.astype(np.float64), np.full(len(table), -1.0)])


def _read_annotations(folder: Path) -> NDArray[np.float64]:
    """Read the pieces of a room, each an instance; one of an unknown class (stairs) is clutter, as in official code.

    Returns:
        (N, 8): x y z r g b, class, number of the piece.
    """
    tables = []
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        piece = _read_text(path)
        name = path.stem.rpartition("_")[0]
        label = CLASSES.index(name if name in CLASSES else "clutter")
        tables.append(np.column_stack([piece, np.tile([float(label), float(number)], (len(piece), 1))]))
    if not tables:
        raise RejectedError("empty", f"{folder}: there are no pieces such as chair_1.txt in it")
    return np.concatenate(tables)


def _read_text(path: Path) -> NDArray[np.float64]:
    """Read x y z r g b.

    The official data has stray control characters in a few lines: in one file between two numbers, so that they count
    as blanks (185?187), in others inside a number (103.0?0000), where blanks would make seven numbers of six.
    """
    data = path.read_bytes()
    for plain in (data.translate(_TO_BLANK), data.translate(None, _CONTROL)):
        try:
            return _six_columns(plain)
        except ValueError as error:
            what = f"{path}: {error}; expected six numbers per line (x y z r g b); repair the line"
            rejected = RejectedError("unreadable", what)
    raise rejected


def _six_columns(data: bytes) -> NDArray[np.float64]:
    table = np.loadtxt(BytesIO(data), dtype=np.float64, ndmin=2)
    if table.shape[1] != 6:
        raise ValueError(f"there are {table.shape[1]} numbers in every line")
    return table


def write_npy(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write rooms as one npy file each; instances and normals are not part of that layout.

    Args:
        folder: Gets ``stanford_indoor3d``.
        scenes: With colours, and a class for every point.

    Returns:
        Number of rooms.

    Raises:
        DataError: A scene has no area, no colours, or points without a class.
    """
    num = 0
    for scene in scenes:
        if scene.color is None or (scene.segment < 0).any() or not _is_room(scene.name):
            raise DataError(
                f"{scene.name}: layout s3dis_npy needs colours, a class for every point, and names that begin with an "
                "area, as Area_1_office_1"
            )
        (folder / NPY).mkdir(parents=True, exist_ok=True)
        table = np.column_stack([scene.coord, scene.color, scene.segment]).astype(np.float32)
        np.save(folder / NPY / f"{scene.name}.npy", table)
        num += 1
    return num


def _is_room(name: str) -> bool:
    return re.fullmatch(r"Area_\d_.+", name) is not None


DATASET = SceneDataset(card=CARD, variants=VARIANTS, find=find)
