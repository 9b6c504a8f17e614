"""ShapeNetPart: 16 categories of shapes with labelled parts, in text files of seven columns."""

import json
from pathlib import Path

import numpy as np

from pointloom.data.quarantine import RejectedError
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import (
    Archive,
    Card,
    Conventions,
    Found,
    ObjectDataset,
    Shape,
    find_root,
    read_lines,
    version,
    wrong_folder,
)
from pointloom.errors import DataError

ROOT = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
PART_COUNTS = {
    **{"Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2},
    **{"Lamp": 4, "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3},
}
"""Parts per category in official order; their labels are counted on from category to category, 50 in all."""
NUM_SHAPES = {"train": 12_137, "val": 1_870, "test": 2_874}
_SPLITS = {"train": "train", "val": "train", "test": "test"}
_TREE = f"""{ROOT}/
  synsetoffset2category.txt
  train_test_split/shuffled_train_file_list.json, shuffled_val_file_list.json, shuffled_test_file_list.json
  02691156/1021a0914a7207aff927ed529ad90a11.txt   x y z nx ny nz part, one point per line
  02773838/..."""

CARD = Card(
    name="shapenetpart",
    title="ShapeNetPart",
    task="part segmentation",
    size="16,881 shapes of 16 categories with 50 parts; 700 MB zipped",
    licence="ShapeNet terms of use: research and education, not commercial (https://shapenet.org/terms)",
    source="https://shapenet.cs.stanford.edu/media/shapenetcore_partanno_segmentation_benchmark_v0_normal.zip",
    trees={"trainval": _TREE, "train": _TREE},
    markers=dict.fromkeys(("trainval", "train"), "synsetoffset2category.txt"),
    folders=(ROOT,),
    archives={
        variant: Archive(url=f"https://shapenet.cs.stanford.edu/media/{ROOT}.zip", folder=ROOT, size_mb=674)
        for variant in ("trainval", "train")
    },
)


def find(folder: Path, variant: str) -> Found:
    """Find all shapes; ``trainval`` counts the validation list as training, as the published protocols do.

    Raises:
        DataError: The folder does not hold the data set, or its categories have no part labels.
    """
    root = find_root(CARD, folder, variant)
    categories = _categories(root)
    splits = _splits(root, folder, variant)
    objects = []
    for category, synset in categories.items():
        for path in sorted((root / synset).glob("*.txt")):
            official = splits.get(path.stem)
            if official is None or (official == "val" and variant == "train"):
                continue
            relative = path.relative_to(folder).as_posix()
            objects.append(
                SourceObject(
                    path=relative,
                    category=category,
                    name=path.stem,
                    group=relative,
                    split=_SPLITS[official],
                    version=version(path),
                )
            )
    if not objects:
        raise wrong_folder(CARD, folder, variant, "none of its listed shapes is there")
    counts = {name: sum(official == name for official in splits.values()) for name in _SPLITS}
    note = "The official validation list is " + ("part of train." if variant == "trainval" else "left out.")
    official = "" if counts == NUM_SHAPES else f" The official lists have {NUM_SHAPES}, these have {counts}."
    parts = part_names(root)
    return Found(objects, tuple(parts), parts, [note + official])


def part_labels(root: Path) -> dict[str, list[int]]:
    """Return the labels of the parts of each category, categories in the order of their labels.

    Other data in this layout brings a ``seg_classes.json`` beside the lists.

    Raises:
        DataError: A category is unknown and there is no ``seg_classes.json``, or its labels leave gaps.
    """
    listed, described = root / "synsetoffset2category.txt", root / "seg_classes.json"
    categories = _categories(root)
    if described.is_file():
        known: dict[str, list[int]] = json.loads(described.read_text(encoding="utf-8"))["seg_classes"]
    else:
        starts = np.cumsum([0, *PART_COUNTS.values()]).tolist()
        known = {c: list(range(first, first + n)) for (c, n), first in zip(PART_COUNTS.items(), starts, strict=False)}
    if unknown := [category for category in categories if category not in known]:
        raise DataError(
            f"{listed}: unknown categories {', '.join(unknown)}; expected {', '.join(known)}, or a seg_classes.json "
            "that lists the part labels of each category"
        )
    labels = {c: known[c] for c in sorted(categories, key=lambda c: known[c][0])}
    flat = [label for part in labels.values() for label in part]
    if flat != list(range(len(flat))):
        raise DataError(f"{root}: the part labels of all categories must be 0, 1, 2, ... without gaps, got {labels}")
    return labels


def part_names(root: Path) -> dict[str, list[str]]:
    """Return the names of the parts of each category, in the order of their labels.

    The official data has no names, so parts are named by their label (0 to 49); ``part_names`` in a
    ``seg_classes.json`` gives names to other data.
    """
    described = root / "seg_classes.json"
    content = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    names: dict[str, list[str]] = content.get("part_names", {})
    return {category: names.get(category, list(map(str, labels))) for category, labels in part_labels(root).items()}


def load(folder: Path, source: SourceObject) -> Shape:
    """Read one shape; part labels become ids inside the category.

    Raises:
        RejectedError: The file is damaged or has labels of another category.
    """
    path = folder / source.path
    try:
        table = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise RejectedError("unreadable", str(error)) from error
    if table.shape[1] != 7:
        raise RejectedError("unreadable", f"expected 7 columns (x y z nx ny nz part), got {table.shape[1]}")
    labels = part_labels(path.parent.parent)[source.category or ""]
    local = np.rint(table[:, 6]).astype(np.int64) - labels[0]
    if local.min() < 0 or local.max() >= len(labels):
        detail = f"part labels of {source.category} are {labels[0]} to {labels[-1]}, got others"
        raise RejectedError("unreadable", detail)
    return Shape(coord=table[:, :3].copy(), normal=table[:, 3:6].copy(), segment=local.astype(np.uint8))


def _categories(root: Path) -> dict[str, str]:
    """Return category to synset in official order."""
    pairs = [line.split() for line in read_lines(root / "synsetoffset2category.txt")]
    return {pair[0]: pair[-1] for pair in pairs}


def _splits(root: Path, folder: Path, variant: str) -> dict[str, str]:
    """Return shape id to list; the id alone identifies a shape, as in the official loader."""
    splits: dict[str, str] = {}
    for name in _SPLITS:
        path = root / "train_test_split" / f"shuffled_{name}_file_list.json"
        if not path.is_file():
            raise wrong_folder(CARD, folder, variant, f"train_test_split/{path.name} is not in it")
        for entry in json.loads(path.read_text(encoding="utf-8")):
            splits[entry.split("/")[-1]] = name
    return splits


DATASET = ObjectDataset(
    card=CARD,
    variants=("trainval", "train"),
    find=find,
    load=load,
    up="y",
    conventions=Conventions(frame="object", order="farthest", loader_transform="unit_sphere_before_sampling"),
)
