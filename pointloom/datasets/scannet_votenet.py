"""VoteNet's export of ScanNet, which VoteNet, H3DNet, 3DETR and MM-3DScene read: four npy files per scan."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scene_boxes import axis_aligned
from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.datasets.card import Card, find_root
from pointloom.datasets.scannet import CARD as SCANNET
from pointloom.datasets.scannet import SPLIT_FILES, count_notes
from pointloom.datasets.scannet_labels import CLASSES_18, CLASSES_20, NYU40_HIGHEST, nyu40_ids
from pointloom.datasets.scene_sets import (
    FoundScenes,
    SceneChoices,
    SceneDataset,
    SceneItem,
    as_colors,
    as_labels,
    check_choices,
    map_labels,
    official_splits,
    read_array,
)
from pointloom.errors import DataError

logger = logging.getLogger(__name__)

VARIANTS = ("classes20", "classes18")
MAX_POINTS = 50_000
"""Points that the official export keeps per scan."""
TOLERANCE = 1e-3
"""Metres by which rounding may take a point out of its box."""

_TREE = (
    "scannet/\n  meta_data/scannetv2_train.txt  meta_data/scannetv2_val.txt\n"
    "  scannet_train_detection_data/scene0000_00_vert.npy           (N, 6): x y z along the walls, r g b\n"
    "  scannet_train_detection_data/scene0000_00_sem_label.npy      (N,): nyu40 ids, 0 = none\n"
    "  scannet_train_detection_data/scene0000_00_ins_label.npy      (N,): from 1, 0 = none\n"
    "  scannet_train_detection_data/scene0000_00_bbox.npy           (K, 7): centre, full lengths, nyu40 id\n  ..."
)
CARD = Card(
    name="scannet_votenet",
    title="ScanNet v2, VoteNet's export",
    task="detection",
    size="1,513 scans of at most 50,000 points",
    licence=SCANNET.licence,
    source=f"{SCANNET.source}; `pointloom datasets export` writes it from prepared scans that are aligned",
    trees=dict.fromkeys(VARIANTS, _TREE),
    markers=dict.fromkeys(VARIANTS, "*_vert.npy"),
    folders=("scannet_train_detection_data", "scannet/scannet_train_detection_data"),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all scans; all of them are aligned.

    Raises:
        DataError: The folder does not hold the export.
    """
    check_choices(CARD.title, choices, aligned=True)
    root = find_root(CARD, folder, variant)
    splits = official_splits(root, SPLIT_FILES)
    names = [path.name.removesuffix("_vert.npy") for path in sorted(root.glob("*_vert.npy"))]
    items = [SceneItem(n, root / f"{n}_vert.npy", splits.get(n, ""), group=n.rpartition("_")[0]) for n in names]
    labels = CLASSES_20 if variant == "classes20" else CLASSES_18

    def read(item: SceneItem) -> Scene:
        return read_scan(item, labels.ids)

    return FoundScenes(items, read, labels.classes, labels.box_classes, count_notes(items))


def read_scan(item: SceneItem, ids: tuple[int, ...]) -> Scene:
    """Read one scan; its boxes are tied to the instances that fit into them, as the files do not say which is whose.

    Args:
        item: With the path of its ``_vert.npy``.
        ids: The classes' nyu40 ids in label order.

    Raises:
        RejectedError: A file is missing or damaged, or they do not fit together.
    """
    stem = str(item.path).removesuffix("_vert.npy")
    vertices = _vertices(item.path)
    semantic, instance, box = (Path(f"{stem}_{name}.npy") for name in ("sem_label", "ins_label", "bbox"))
    num = len(vertices)
    table = read_array(box, columns=7).astype(np.float32)
    label = map_labels(box, table[:, 6], CLASSES_18.ids, highest=NYU40_HIGHEST).astype(np.int64)
    if (label < 0).any():
        raise RejectedError("wrong_labels", f"{box}: a box of nyu40 id {table[label < 0, 6][0]:g}, not one of the 18")
    number = as_labels(instance, read_array(instance, rows=num), "int32") - np.int32(1)
    found = read_array(semantic, rows=num)
    furniture = map_labels(semantic, found, CLASSES_18.ids, highest=NYU40_HIGHEST)
    return Scene(
        name=item.name,
        coord=vertices[:, :3].astype(np.float32),
        color=as_colors(vertices[:, 3:]) if vertices.shape[1] == 6 else None,
        normal=None,
        segment=map_labels(semantic, found, ids, highest=NYU40_HIGHEST),
        instance=number,
        boxes=SceneBoxes(
            center=table[:, :3],
            size=table[:, 3:6],
            heading=np.zeros(len(table), dtype=np.float32),
            label=label,
            instance=_owners(table[:, :6], label, vertices[:, :3].astype(np.float32), furniture, number),
        ),
        split=item.split,
        group=item.group,
        aligned=True,
    )


def _owners(
    boxes: NDArray[np.float32],
    label: NDArray[np.int64],
    coord: NDArray[np.float32],
    segment: NDArray[np.int16],
    instance: NDArray[np.int32],
) -> NDArray[np.int64]:
    """Return (K,) the instance of every box: of its class, inside of it, and closest to its faces; -1 without any.

    A box is the hull of all points of its instance, of which some, or all, may have been left out.
    """
    names, first, owner = np.unique(instance, return_index=True, return_inverse=True)
    low = np.full((len(names), 3), np.inf, dtype=np.float32)
    high = -low
    np.minimum.at(low, owner, coord)
    np.maximum.at(high, owner, coord)
    inward = np.concatenate([
        low[:, None] - (boxes[:, :3] - boxes[:, 3:] / 2), (boxes[:, :3] + boxes[:, 3:] / 2) - high[:, None]
    ], axis=2)  # fmt: skip
    fits = (inward > -TOLERANCE).all(axis=2) & (names[:, None] >= 0) & (segment[first][:, None] == label)
    gap = np.where(fits, np.abs(inward).sum(axis=2), np.inf)
    owners, taken = np.full(len(boxes), -1, dtype=np.int64), np.zeros(len(names), dtype=np.bool_)
    for place in np.argsort(gap, axis=None, kind="stable")[: np.count_nonzero(fits)]:
        name, box = divmod(int(place), len(boxes))
        if owners[box] < 0 and not taken[name]:
            owners[box], taken[name] = names[name], True
    return owners


def _vertices(path: Path) -> "np.typing.NDArray[np.generic]":
    try:
        return read_array(path, columns=6)
    except RejectedError:
        return read_array(path, columns=3)


def write_scans(
    folder: Path,
    scenes: Iterable[Scene],
    *,
    classes: tuple[str, ...],
    box_classes: tuple[str, ...],
    max_points: int | None = MAX_POINTS,
    seed: int = 0,
) -> int:
    """Write scenes as VoteNet's export and the lists of their splits beside it.

    Args:
        folder: Gets ``scannet_train_detection_data`` and ``meta_data``.
        scenes: Aligned. Of turned boxes the hulls along the axes are written, as detectors for ScanNet are trained
            here (``num_headings: 1``); a warning counts them.
        classes: Of the points, among ScanNet's 20.
        box_classes: Of the boxes, among ScanNet's 18.
        max_points: A random part of larger scans is kept; None keeps all, as MM-3DScene's pre-training wants it.
        seed: Of that choice. (The official export draws anew each time.)

    Returns:
        Number of scenes.

    Raises:
        DataError: A scene is not aligned, or a class is not ScanNet's.
    """
    point_ids, box_ids = np.array([*nyu40_ids(classes), 0]), np.array([*nyu40_ids(box_classes), 0])
    data, lists = folder / "scannet_train_detection_data", folder / "meta_data"
    names: dict[str, list[str]] = {split: [] for split in SPLIT_FILES}
    turned = 0
    for number, scene in enumerate(scenes):
        if not scene.aligned:
            raise DataError(f"{scene.name}: VoteNet's export needs scenes along the axes; prepare.scenes.aligned: true")
        for path in (data, lists):
            path.mkdir(parents=True, exist_ok=True)
        kept = np.arange(len(scene.coord))
        if max_points is not None and len(kept) > max_points:
            kept = np.random.default_rng([seed, number]).permutation(len(kept))[:max_points]
        columns = [array for array in (scene.coord, scene.color) if array is not None]
        np.save(data / f"{scene.name}_vert.npy", np.column_stack(columns)[kept].astype(np.float32))
        np.save(data / f"{scene.name}_sem_label.npy", point_ids[scene.segment[kept]])
        np.save(data / f"{scene.name}_ins_label.npy", scene.instance[kept].astype(np.int64) + 1)
        boxes = np.zeros((0, 7))
        if scene.boxes is not None:
            turned += int(np.count_nonzero(scene.boxes.heading))
            boxes = np.column_stack([scene.boxes.center, axis_aligned(scene.boxes).size, box_ids[scene.boxes.label]])
        np.save(data / f"{scene.name}_bbox.npy", boxes.astype(np.float64))
        names[scene.split].append(scene.name)
    for split, file in SPLIT_FILES.items():
        (lists / file).write_text("".join(f"{name}\n" for name in names[split]), encoding="utf-8")
    if turned:
        logger.warning("%d boxes are turned; their hulls along the axes were written, which are larger", turned)
    return sum(map(len, names.values()))


DATASET = SceneDataset(card=CARD, variants=VARIANTS, find=find)
