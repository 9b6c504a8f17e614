"""ScanNet v2 as it is delivered: a mesh, an over-segmentation, an aggregation and an alignment per scan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scene_checks import boxes_of_instances
from pointloom.data.scenes import Scene, Sentence
from pointloom.datasets.card import Card, find_root, wrong_folder
from pointloom.datasets.scannet_labels import CLASSES_18, CLASSES_20, TABLE, LabelSet, LabelTable, read_label_table
from pointloom.datasets.scanrefer import read_sentences
from pointloom.datasets.scene_sets import (
    FoundScenes,
    SceneChoices,
    SceneDataset,
    SceneItem,
    check_choices,
    check_sentences,
    find_beside,
    official_splits,
    read_json,
)
from pointloom.errors import ParamsError

VARIANTS = ("classes20", "classes200", "classes18")
SPLIT_FILES = {"train": "scannetv2_train.txt", "test": "scannetv2_val.txt", "pretrain": "scannetv2_test.txt"}
"""Our split to the official list; the official test scans have no public labels."""
NUM_SCANS = {"train": 1201, "test": 312, "pretrain": 100}

_TREE = (
    "ScanNet/\n  scannetv2-labels.combined.tsv\n  scannetv2_train.txt  scannetv2_val.txt  scannetv2_test.txt\n"
    "  scans/scene0000_00/scene0000_00_vh_clean_2.ply\n"
    "  scans/scene0000_00/scene0000_00_vh_clean_2.0.010000.segs.json\n"
    "  scans/scene0000_00/scene0000_00.aggregation.json\n  scans/scene0000_00/scene0000_00.txt     (axisAlignment)\n"
    "  scans_test/scene0707_00/scene0707_00_vh_clean_2.ply     (optional)\n  ..."
)
CARD = Card(
    name="scannet",
    title="ScanNet v2",
    task="semantic and instance segmentation, detection, pre-training",
    size="1,513 labelled scans and 100 without labels",
    licence="research, not commercial; the owner asks for a signed form",
    source="http://www.scan-net.org (form, then the download script with --type for the four kinds of files)",
    trees=dict.fromkeys(VARIANTS, _TREE),
    markers=dict.fromkeys(VARIANTS, "scans/*/*_vh_clean_2.ply"),
    folders=("ScanNet", "scannet"),
    archives={},
)


def find(folder: Path, variant: str, choices: SceneChoices) -> FoundScenes:
    """Find all scans.

    Raises:
        DataError: The folder does not hold ScanNet, or the table of labels is missing.
        ParamsError: It was not said whether the scans are to be aligned, or sentences go with scans that are not.
    """
    check_choices(CARD.title, choices, "aligned", "sentences")
    root = find_root(CARD, folder, variant)
    table_file = find_beside(root, TABLE)
    if table_file is None:
        raise wrong_folder(CARD, folder, variant, f"{TABLE} is not in it")
    if choices.aligned is None:
        raise ParamsError(
            "prepare.scenes.aligned: say true (turned along the walls, as detection and ScanRefer need it) or false "
            "(as scanned, as semantic segmentation usually takes it)"
        )
    check_sentences(choices)
    aligned, table = choices.aligned, read_label_table(table_file)
    labels = {"classes20": CLASSES_20, "classes18": CLASSES_18}.get(variant) or table.classes_200()
    splits = official_splits(root, SPLIT_FILES)
    paths = sorted(root.glob("scans/*/*_vh_clean_2.ply")) + sorted(root.glob("scans_test/*/*_vh_clean_2.ply"))
    items = []
    for path in paths:
        name = path.parent.name
        split = splits.get(name, "pretrain" if path.parent.parent.name == "scans_test" else "")
        items.append(SceneItem(name, path, split, group=name.rpartition("_")[0]))
    notes = count_notes(items)
    if aligned and (others := [item for item in items if item.split == "pretrain" and not _has_alignment(item)]):
        items = [item for item in items if item not in others]
        notes.append(f"{len(others)} test scans have no axisAlignment and were left out: they cannot be aligned.")
    sentences = read_sentences(choices.sentences, table.nyu40)

    def read(item: SceneItem) -> Scene:
        return read_scan(item, labels, table, aligned=aligned, sentences=sentences.get(item.name, ()))

    return FoundScenes(items, read, labels.classes, labels.box_classes, notes)


def count_notes(items: list[SceneItem]) -> list[str]:
    """Say how many scans there are where it is not the official number."""
    counts = {split: sum(item.split == split for item in items) for split in NUM_SCANS}
    if all(counts[split] == NUM_SCANS[split] for split in ("train", "test")):
        return []
    return [
        f"The official lists have {NUM_SCANS['train']} scans to train and {NUM_SCANS['test']} to test, here are "
        f"{counts['train']} and {counts['test']}."
    ]


def read_scan(
    item: SceneItem, labels: LabelSet, table: LabelTable, *, aligned: bool, sentences: tuple[Sentence, ...] = ()
) -> Scene:
    """Read one scan; vertices are the points.

    Raises:
        RejectedError: A file is missing or damaged, or they do not fit together.
    """
    stem = item.path.parent / item.path.parent.name
    coord, color, normal = read_mesh(item.path)
    if aligned:
        turn = read_alignment(Path(f"{stem}.txt"))
        coord = coord @ turn[:3, :3].T + turn[:3, 3]
        normal = normal @ turn[:3, :3].T
    superpoint = None
    segment = np.full(len(coord), -1, dtype=np.int16)
    instance = np.full(len(coord), -1, dtype=np.int32)
    if item.split != "pretrain":
        superpoint = read_segments(Path(f"{stem}_vh_clean_2.0.010000.segs.json"), len(coord))
        place = {number: i for i, number in enumerate(labels.ids)}
        words = table.numbers(labels.column)
        for group in read_groups(Path(f"{stem}.aggregation.json")):
            inside = np.isin(superpoint, group["segments"])
            segment[inside] = place.get(words.get(group["label"], -1), -1)
            instance[inside] = group["id"]
    scene = Scene(
        name=item.name,
        coord=coord.astype(np.float32),
        color=color,
        normal=normal.astype(np.float32),
        segment=segment,
        instance=instance,
        superpoint=superpoint,
        sentences=sentences,
        split=item.split,
        group=item.group,
        aligned=aligned,
    )
    return scene if item.split == "pretrain" else replace(scene, boxes=boxes_of_instances(scene, classes=labels.boxed))


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None, NDArray[np.float64]]:
    """Return vertices, colours if there are any, and vertex normals of a PLY mesh.

    Raises:
        RejectedError: The file is damaged or has no faces.
    """
    import trimesh

    try:
        mesh: Any = trimesh.load(path, file_type="ply", process=False)
        coord = np.asarray(mesh.vertices, dtype=np.float64)
        faces = np.asarray(getattr(mesh, "faces", np.empty((0, 3))), dtype=np.int64)
        color = mesh.visual.vertex_colors[:, :3] if mesh.visual.kind == "vertex" else None
    except Exception as error:  # trimesh raises almost anything on a damaged file
        raise RejectedError("unreadable", f"{path}: {type(error).__name__}: {error}") from error
    if len(faces) == 0 or faces.max() >= len(coord):
        raise RejectedError("unreadable", f"{path}: a mesh with faces was expected")
    return coord, color, vertex_normals(coord, faces)


def vertex_normals(coord: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (V, 3) unit normals: the sum of the faces around, weighted by area; 0 where there is none."""
    a, b, c = (coord[faces[:, i]] for i in range(3))
    weighted = np.cross(b - a, c - a)
    corner = faces.T.reshape(-1)
    summed = [np.bincount(corner, np.tile(weighted[:, axis], 3), minlength=len(coord)) for axis in range(3)]
    normal = np.stack(summed, axis=1)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)


def _has_alignment(item: SceneItem) -> bool:
    path = item.path.parent / f"{item.name}.txt"
    return path.is_file() and _alignment_line(path) is not None


def _alignment_line(path: Path) -> str | None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((text for text in lines if text.strip().startswith("axisAlignment")), None)


def read_alignment(path: Path) -> NDArray[np.float64]:
    """Return the 4 x 4 turn along the walls.

    Raises:
        RejectedError: The file is missing or has none, as those of test scans, or the matrix is no rigid motion.
    """
    if not path.is_file():
        raise RejectedError("missing_file", f"{path} is not there")
    line = _alignment_line(path)
    if line is None:
        raise RejectedError("unreadable", f"{path}: has no axisAlignment; get it again, or set scenes.aligned: false")
    try:
        turn = np.array([float(word) for word in line.partition("=")[2].split()]).reshape(4, 4)
    except ValueError as error:
        raise RejectedError("unreadable", f"{path}: axisAlignment must be 16 numbers ({error})") from error
    if not np.allclose(turn[:3, :3] @ turn[:3, :3].T, np.eye(3), atol=1e-3):
        raise RejectedError("unreadable", f"{path}: axisAlignment is no rotation with a shift")
    return turn


def read_segments(path: Path, num_points: int) -> NDArray[np.int32]:
    """Return the over-segmentation.

    Raises:
        RejectedError: The file is missing or damaged, or has another number of points.
    """
    content = read_json(path)
    segments = np.asarray(content.get("segIndices") if isinstance(content, dict) else None)
    if segments.shape != (num_points,) or segments.dtype.kind not in "iu":
        raise RejectedError(
            "wrong_labels",
            f"{path}: expected segIndices of {num_points} numbers, got {segments.dtype} {segments.shape}",
        )
    return segments.astype(np.int32)


def read_groups(path: Path) -> list[dict[str, Any]]:
    """Return the objects of an aggregation: ``id``, ``label`` and ``segments`` of each.

    Raises:
        RejectedError: The file is missing or damaged.
    """
    content = read_json(path)
    try:
        return [
            {"id": int(g["id"]), "label": str(g["label"]), "segments": np.array(g["segments"], dtype=np.int64)}
            for g in content["segGroups"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise RejectedError("unreadable", f"{path}: segGroups with id, label and segments were expected") from error


DATASET = SceneDataset(card=CARD, variants=VARIANTS, find=find)
