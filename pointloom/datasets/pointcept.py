"""Pointcept's layout of ScanNet and of S3DIS: a folder of npy files per scene; read and written."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.scene_checks import boxes_of_instances
from pointloom.data.scenes import Scene
from pointloom.datasets.card import Card, find_root
from pointloom.datasets.scannet import CARD as SCANNET
from pointloom.datasets.scannet import count_notes
from pointloom.datasets.scannet_labels import CLASSES_20, TABLE, LabelSet, read_label_table
from pointloom.datasets.scanrefer import read_sentences
from pointloom.datasets.scene_sets import (
    FoundScenes,
    SceneChoices,
    SceneDataset,
    SceneItem,
    as_colors,
    as_labels,
    check_choices,
    check_sentences,
    find_beside,
    read_array,
)
from pointloom.errors import DataError, ParamsError

VARIANTS = ("scannet20", "scannet200")
SPLITS = {"train": "train", "val": "test", "test": "pretrain"}
"""Its folders to our splits; the official test scans have no public labels."""

_TREE = (
    "scannet/\n  {0}train/scene0191_00/coord.npy       (N, 3) metres\n"
    "  train/scene0191_00/color.npy       (N, 3) 0 to 255\n"
    "  train/scene0191_00/normal.npy      (N, 3), optional\n  train/scene0191_00/{1}.npy   (N,), -1 = none\n"
    "  train/scene0191_00/instance.npy    (N,), -1 = none\n  val/...\n  test/...       without labels, optional"
)
CARD = Card(
    name="pointcept",
    title="ScanNet v2 in Pointcept's layout",
    task="semantic and instance segmentation, pre-training",
    size="1,613 scans, 100 of them without labels",
    licence=SCANNET.licence,
    source=f"{SCANNET.source}; `pointloom datasets export` writes it from prepared scans that are not aligned",
    trees={
        "scannet20": _TREE.format("", "segment20"),
        "scannet200": _TREE.format(f"{TABLE}\n  ", "segment200"),
    },
    markers={"scannet20": "train/*/segment20.npy", "scannet200": "train/*/segment200.npy"},
    folders=("scannet", "data/scannet"),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all scenes of the three folders. They are not aligned unless the user says so.

    Raises:
        DataError: The folder has another layout, or the table of labels is missing where it is needed.
        ParamsError: Sentences were asked for, but the scans are not aligned or the table of labels is not there.
    """
    check_choices(CARD.title, choices, "aligned", "sentences")
    check_sentences(choices)
    root = find_root(CARD, folder, variant)
    labels = CLASSES_20 if variant == "scannet20" else _classes_200(root)
    items = [
        SceneItem(path.parent.name, path.parent, split, group=path.parent.name.rpartition("_")[0])
        for part, split in SPLITS.items()
        for path in sorted(root.glob(f"{part}/*/coord.npy"))
    ]
    sentences = {}
    if choices.sentences:
        table = find_beside(root, TABLE)
        if table is None:
            raise ParamsError(f"prepare.scenes.sentences: {TABLE} is needed beside {root} to tell classes of objects")
        sentences = read_sentences(choices.sentences, read_label_table(table).nyu40)
    name = f"segment{variant.removeprefix('scannet')}.npy"

    def read(item: SceneItem) -> Scene:
        scene = read_folder(item, segment=name, aligned=bool(choices.aligned))
        scene = replace(scene, sentences=sentences.get(item.name, ()))
        return _with_boxes(scene, labels)

    notes = count_notes(items) if all(item.name.startswith("scene") for item in items) else []
    return FoundScenes(items, read, labels.classes, labels.box_classes, notes)


def _classes_200(root: Path) -> LabelSet:
    table = find_beside(root, TABLE)
    if table is None:
        raise DataError(f"{root}: the names of the 200 classes are in {TABLE}; put ScanNet's file beside the scenes")
    return read_label_table(table).classes_200()


def _with_boxes(scene: Scene, labels: LabelSet) -> Scene:
    if scene.split == "pretrain":
        return scene
    return replace(scene, boxes=boxes_of_instances(scene, classes=labels.boxed))


def read_folder(item: SceneItem, *, segment: str, aligned: bool) -> Scene:
    """Read one scene; what is not there is unknown, except coordinates.

    Raises:
        RejectedError: A file is damaged, or they do not fit together.
    """
    coord = read_array(item.path / "coord.npy", columns=3).astype(np.float32)
    num = len(coord)
    color, normal = (_optional(item.path / name, num, columns=3) for name in ("color.npy", "normal.npy"))
    found, instance = (_optional(item.path / name, num) for name in (segment, "instance.npy"))
    return Scene(
        name=item.name,
        coord=coord,
        color=None if color is None else as_colors(color),
        normal=None if normal is None else normal.astype(np.float32),
        segment=np.full(num, -1, dtype=np.int16) if found is None else as_labels(item.path / segment, found, "int16"),
        instance=np.full(num, -1, dtype=np.int32) if instance is None else as_labels(item.path, instance, "int32"),
        split=item.split,
        group=item.group,
        aligned=aligned,
    )


def _optional(path: Path, rows: int, *, columns: int | None = None) -> NDArray[np.generic] | None:
    return read_array(path, columns=columns, rows=rows) if path.is_file() else None


def write_folders(folder: Path, scenes: Iterable[Scene], *, segment: str = "segment20.npy", areas: bool = False) -> int:
    """Write scenes in Pointcept's layout.

    Args:
        folder: Gets ``train``, ``val`` and ``test``, or the areas.
        scenes: Not aligned, unless they go by areas.
        segment: Name of the file of classes: ``segment20.npy``, ``segment200.npy``, or ``segment.npy`` for S3DIS.
        areas: S3DIS's layout: ``Area_1/office_1`` instead of splits.

    Returns:
        Number of scenes.

    Raises:
        DataError: A scene is aligned, or has no area.
    """
    names = {ours: theirs for theirs, ours in SPLITS.items()}
    num = 0
    for scene in scenes:
        if areas and not scene.group:
            raise DataError(f"{scene.name}: has no area; S3DIS's layout goes by areas")
        if scene.aligned and not areas:
            raise DataError(
                f"{scene.name}: is aligned with the walls, Pointcept's ScanNet is not, and boxes and features of the "
                "two kinds do not fit together; prepare with scenes.aligned: false"
            )
        room = scene.name.removeprefix(f"{scene.group}_")
        path = folder / scene.group / room if areas else folder / names[scene.split] / scene.name
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "coord.npy", scene.coord)
        for name, array in (("color", scene.color), ("normal", scene.normal)):
            if array is not None:
                np.save(path / f"{name}.npy", array)
        if areas or scene.split != "pretrain":
            np.save(path / segment, scene.segment)
            np.save(path / "instance.npy", scene.instance)
        num += 1
    return num


DATASET = SceneDataset(card=CARD, variants=VARIANTS, find=find)
