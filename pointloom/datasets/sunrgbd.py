"""SUN RGB-D: single views of rooms with turned boxes, in VoteNet's format or as it is delivered (no Matlab needed)."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.materials import NEUTRAL
from pointloom.data.quarantine import RejectedError
from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.datasets.card import Card, find_root, wrong_folder
from pointloom.datasets.scene_sets import (
    FoundScenes,
    SceneChoices,
    SceneDataset,
    SceneItem,
    check_choices,
    map_labels,
    read_array,
)
from pointloom.errors import DataError

BOX_CLASSES = (
    "bed", "table", "sofa", "chair", "toilet", "desk", "dresser", "night_stand", "bookshelf", "bathtub",
)  # fmt: skip
NUM_FRAMES = {"train": 5285, "test": 5050}
MAX_POINTS = 50_000
"""Points that VoteNet's conversion keeps per frame."""
FOLDERS = {"train": "sunrgbd_pc_bbox_votes_50k_v1_train", "test": "sunrgbd_pc_bbox_votes_50k_v1_val"}
META = "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat"
SPLIT = "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat"

CARD = Card(
    name="sunrgbd",
    title="SUN RGB-D",
    task="detection with turned boxes",
    size="5,285 frames to train and 5,050 to test, 10 classes",
    licence="none is stated; its parts are NYU depth v2, B3DO and SUN3D",
    source="https://rgbd.cs.princeton.edu (SUNRGBD.zip and SUNRGBDtoolbox.zip)",
    trees={
        "votenet": "sunrgbd/\n  sunrgbd_pc_bbox_votes_50k_v1_train/000001_pc.npz      pc (N, 6): x y z, r g b to 1\n"
        "  sunrgbd_pc_bbox_votes_50k_v1_train/000001_bbox.npy    (K, 8): centre, half lengths, heading, class\n"
        "  sunrgbd_pc_bbox_votes_50k_v1_val/...",
        "raw": f"sunrgbd/\n  {META}\n  {SPLIT}\n  SUNRGBD/kv1/NYUdata/NYU0001/depth/NYU0001.png\n"
        "  SUNRGBD/kv1/NYUdata/NYU0001/image/NYU0001.jpg\n  ...",
    },
    markers={"votenet": f"{FOLDERS['train']}/*_pc.npz", "raw": META},
    folders=("sunrgbd", "SUNRGBD"),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all frames.

    Raises:
        DataError: The folder does not hold the variant, or its tables are damaged.
    """
    check_choices(CARD.title, choices, aligned=False)
    root = find_root(CARD, folder, variant)
    if variant == "votenet":
        items = [
            SceneItem(path.name.removesuffix("_pc.npz"), path, split)
            for split, name in FOLDERS.items()
            for path in sorted((root / name).glob("*_pc.npz"))
        ]
        read = read_votenet
    else:
        frames = _read_frames(folder, root)
        items = [item for item, _ in frames.values()]

        def read(item: SceneItem) -> Scene:
            return read_raw(item, frames[item.name][1], root)

    counts = {split: sum(item.split == split for item in items) for split in NUM_FRAMES}
    expected, found = (" and ".join(str(n) for n in c.values()) for c in (NUM_FRAMES, counts))
    notes = [] if expected == found else [f"The official frames are {expected} to train and to test, here are {found}."]
    return FoundScenes(items, read, (), BOX_CLASSES, notes)


def read_votenet(item: SceneItem) -> Scene:
    """Read a frame of VoteNet's format: half lengths become full ones, clockwise headings counter-clockwise.

    Raises:
        RejectedError: A file is missing or damaged.
    """
    try:
        with np.load(item.path, allow_pickle=False) as file:
            points = file["pc"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RejectedError("unreadable", f"{item.path}: {error}") from error
    if points.ndim != 2 or points.shape[1] != 6:
        raise RejectedError("unreadable", f"{item.path}: expected pc of shape (N, 6), got {points.shape}")
    path = item.path.with_name(f"{item.name}_bbox.npy")
    table = read_array(path, columns=8)
    label = map_labels(path, table[:, 7], range(len(BOX_CLASSES)), highest=len(BOX_CLASSES) - 1)
    boxes = SceneBoxes(
        center=table[:, :3].astype(np.float32),
        size=(2 * table[:, 3:6]).astype(np.float32),
        heading=(-table[:, 6]).astype(np.float32),
        label=label.astype(np.int64),
        instance=np.full(len(table), -1, dtype=np.int64),
    )
    return _scene(item, points, boxes)


def _scene(item: SceneItem, points: NDArray[Any], boxes: SceneBoxes) -> Scene:
    num = len(points)
    return Scene(
        name=item.name,
        coord=points[:, :3].astype(np.float32),
        color=np.rint(np.clip(points[:, 3:], 0, 1) * 255).astype(np.uint8),
        normal=None,
        segment=np.full(num, -1, dtype=np.int16),
        instance=np.full(num, -1, dtype=np.int32),
        boxes=boxes,
        split=item.split,
        group=item.group,
    )


def _read_frames(folder: Path, root: Path) -> dict[str, tuple[SceneItem, Any]]:
    """Return the frames of the table that are in the official split, by their number in it."""
    from scipy.io import loadmat

    if not (root / SPLIT).is_file():
        raise wrong_folder(CARD, folder, "raw", f"{SPLIT} is not in it")
    try:
        rows = np.atleast_1d(loadmat(root / META, squeeze_me=True, struct_as_record=False)["SUNRGBDMeta"])
        lists = loadmat(root / SPLIT, squeeze_me=True)
        names = {"train": lists["alltrain"], "test": lists["alltest"]}
        splits = {_inside(str(path)): split for split, paths in names.items() for path in np.atleast_1d(paths)}
        paths = [_inside(row.depthpath) for row in rows]
    except Exception as error:  # a damaged table raises almost anything
        what = f"its tables cannot be read ({type(error).__name__}: {error})"
        raise wrong_folder(CARD, folder, "raw", what) from error
    frames = {}
    for number, (row, path) in enumerate(zip(rows, paths, strict=True), start=1):
        sequence = path.rsplit("/", 2)[0]
        if sequence in splits:
            item = SceneItem(f"{number:06d}", root / path, splits[sequence], group=sequence)
            frames[item.name] = item, row
    return frames


def _inside(path: str) -> str:
    """Return a path from ``SUNRGBD/`` on: the tables have those of the authors' machine."""
    return "SUNRGBD/" + path.partition("/SUNRGBD/")[2].strip("/")


def read_raw(item: SceneItem, row: Any, root: Path) -> Scene:
    """Make points of a frame's depth image, turn them upright, and read its boxes (labels of version 1).

    Note: VoteNet's Matlab code draws other 50,000 points.

    Args:
        item: With the path of the depth image.
        row: Of the official table.
        root: Folder of the data set.

    Raises:
        RejectedError: An image is missing or damaged, or the row is.
    """
    from PIL import Image

    image = root / _inside(row.rgbpath)
    for path in (item.path, image):
        if not path.is_file():
            raise RejectedError("missing_file", f"{path} is not there")
    try:
        depth = decode_depth(np.asarray(Image.open(item.path)))
        color = np.asarray(Image.open(image).convert("RGB"), dtype=np.float64) / 255
    except (OSError, ValueError) as error:
        raise RejectedError("unreadable", f"{item.path}: {error}") from error
    if depth.shape != color.shape[:2]:
        raise RejectedError("unreadable", f"{item.path}: depth of {depth.shape}, colours of {color.shape[:2]}")
    coord = unproject(depth, np.asarray(row.K, dtype=np.float64)) @ np.asarray(row.Rtilt, dtype=np.float64).T
    valid = np.flatnonzero(depth.reshape(-1) > 0)
    if len(valid) > MAX_POINTS:
        valid = np.random.default_rng(int(item.name)).permutation(valid)[:MAX_POINTS]
    return _scene(item, np.column_stack([coord, color.reshape(-1, 3)])[valid], _boxes(row, item.path))


def decode_depth(image: NDArray[Any]) -> NDArray[np.float64]:
    """Return metres from the stored 16 bits, which are turned by three; at most 8 m, 0 where nothing was measured."""
    bits = image.astype(np.uint16)
    return np.minimum(((bits >> 3) | (bits << 13)).astype(np.float64) / 1000, 8)


def unproject(depth: NDArray[np.float64], camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (H * W, 3) points, x right, y forward, z up; pixels count from 1, as in Matlab."""
    height, width = depth.shape
    v, u = np.mgrid[1 : height + 1, 1 : width + 1]
    right = (u - camera[0, 2]) * depth / camera[0, 0]
    down = (v - camera[1, 2]) * depth / camera[1, 1]
    return np.stack([right, depth, -down], axis=-1).reshape(-1, 3)


def _boxes(row: Any, path: Path) -> SceneBoxes:
    """Read boxes: the second half length is along the object's front, the first one across."""
    try:
        found = [box for box in np.atleast_1d(row.groundtruth3DBB) if str(box.classname) in BOX_CLASSES]
        center = np.array([box.centroid for box in found], dtype=np.float64).reshape(-1, 3)
        half = np.abs(np.array([box.coeffs for box in found], dtype=np.float64)).reshape(-1, 3)
        front = np.array([box.orientation for box in found], dtype=np.float64).reshape(-1, 3)
    except (AttributeError, ValueError, TypeError) as error:
        raise RejectedError("wrong_labels", f"{path}: its boxes cannot be read ({error})") from error
    return SceneBoxes(
        center=center.astype(np.float32),
        size=(2 * half[:, [1, 0, 2]]).astype(np.float32),
        heading=np.arctan2(front[:, 1], front[:, 0]).astype(np.float32),
        label=np.array([BOX_CLASSES.index(str(box.classname)) for box in found], dtype=np.int64),
        instance=np.full(len(found), -1, dtype=np.int64),
    )


def write_frames(
    folder: Path,
    scenes: Iterable[Scene],
    *,
    box_classes: tuple[str, ...],
    max_points: int | None = MAX_POINTS,
    seed: int = 0,
) -> int:
    """Write scenes in VoteNet's format: points, boxes, and the centres that every point in a box votes for.

    Args:
        folder: Gets the two folders of the format.
        scenes: Those for pre-training are left out, the format has none. Names that are not six digits become numbers.
        box_classes: Of the boxes, among the ten of SUN RGB-D.
        max_points: A random part of larger scenes is kept; None keeps all.
        seed: Of that choice.

    Returns:
        Number of scenes.

    Raises:
        DataError: A class is not SUN RGB-D's.
    """
    if odd := [name for name in box_classes if name not in BOX_CLASSES]:
        raise DataError(f"class {odd[0]!r} is not among SUN RGB-D's ten classes; known: {', '.join(BOX_CLASSES)}")
    num = 0
    for number, scene in enumerate(scenes, start=1):
        if scene.split not in FOLDERS:
            continue
        kept = np.arange(len(scene.coord))
        if max_points is not None and len(kept) > max_points:
            kept = np.random.default_rng([seed, number]).permutation(len(kept))[:max_points]
        name = scene.name if re.fullmatch(r"\d{6}", scene.name) else f"{number:06d}"
        path = folder / FOLDERS[scene.split] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        color = np.full(scene.coord.shape, NEUTRAL) if scene.color is None else scene.color
        pc = np.column_stack([scene.coord, color / 255])[kept].astype(np.float32)
        boxes = _box_table(scene.boxes, box_classes)
        np.savez_compressed(f"{path}_pc.npz", pc=pc)
        np.save(f"{path}_bbox.npy", boxes)
        np.savez_compressed(f"{path}_votes.npz", point_votes=_point_votes(pc[:, :3], boxes))
        num += 1
    return num


def _box_table(boxes: SceneBoxes | None, classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return (K, 8): centre, half lengths, clockwise heading, class."""
    if boxes is None:
        return np.zeros((0, 8))
    place = np.array([BOX_CLASSES.index(name) for name in classes], dtype=np.int64)
    return np.column_stack([boxes.center, boxes.size / 2, -boxes.heading, place[boxes.label]]).astype(np.float64)


def _point_votes(coord: NDArray[np.float32], table: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (N, 10): whether a point is in a box, and the way to the centres of the first three of them."""
    from pointloom.data.box_transforms import BoxedPoints, votes

    untied = np.full(len(table), -1, dtype=np.int64)
    none = np.zeros_like(coord)
    scene = BoxedPoints(
        coord=coord, color=none, normal=none, height=none[:, 0], instance=np.full(len(coord), -1, dtype=np.int64),
        boxes=(table[:, :7] * [1, 1, 1, 2, 2, 2, -1]).astype(np.float32), label=untied, box_instance=untied,
    )  # fmt: skip
    offset, inside = votes(scene)
    return np.column_stack([inside, offset.reshape(len(coord), -1)]).astype(np.float32)


DATASET = SceneDataset(card=CARD, variants=("votenet", "raw"), find=find)
