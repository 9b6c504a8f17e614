"""ScanObjectNN: scanned objects of 15 categories, with and without background, in HDF5 files."""

from pathlib import Path

import numpy as np

from pointloom.data.quarantine import RejectedError
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import Card, Conventions, Found, ObjectDataset, Shape, find_root, version, wrong_folder
from pointloom.datasets.containers import read_labels, read_row

CLASSES = (
    *("bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table"),
    *("bed", "pillow", "sink", "sofa", "toilet"),
)
FILES = {
    "obj_bg": ("main_split", "objectdataset"),
    "obj_only": ("main_split_nobg", "objectdataset"),
    "pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75"),
}
"""Variant to folder and end of the file names."""
NUM_OBJECTS = {"obj_bg": (2_309, 581), "obj_only": (2_309, 581), "pb_t50_rs": (11_416, 2_882)}
_SPLITS = {"train": "training", "test": "test"}

CARD = Card(
    name="scanobjectnn",
    title="ScanObjectNN",
    task="classification of scans",
    size="2,890 objects of 15 categories, 2,048 points each (PB_T50_RS: 14,298)",
    licence="research and education, not commercial; the owner asks for a signed form",
    source="https://hkust-vgd.github.io/scanobjectnn/ (form, then h5_files.zip)",
    trees={
        variant: f"h5_files/\n  {folder}/training_{end}.h5      data (N, 2048, 3), label (N,)\n  {folder}/test_{end}.h5"
        for variant, (folder, end) in FILES.items()
    },
    markers={variant: f"{folder}/test_{end}.h5" for variant, (folder, end) in FILES.items()},
    folders=("h5_files", "ScanObjectNN", "ScanObjectNN/h5_files"),
    archives={},
)


def find(folder: Path, variant: str) -> Found:
    """Find all objects of a variant.

    Raises:
        DataError: The folder does not hold the variant.
    """
    sub_folder, end = FILES[variant]
    root = find_root(CARD, folder, variant)
    objects = []
    counts = []
    for split, prefix in _SPLITS.items():
        file = root / sub_folder / f"{prefix}_{end}.h5"
        if not file.is_file():
            raise wrong_folder(CARD, folder, variant, f"{sub_folder}/{file.name} is not in it")
        labels = read_labels(CARD, folder, variant, file)
        if labels.min() < 0 or labels.max() >= len(CLASSES):
            raise wrong_folder(CARD, folder, variant, f"{file.name} has labels other than 0 to {len(CLASSES) - 1}")
        counts.append(len(labels))
        stamp = version(file)
        for row, label in enumerate(labels):
            path = f"{file.relative_to(folder).as_posix()}#{row}"
            name = f"{CLASSES[label]} {row}"
            objects.append(
                SourceObject(path=path, category=CLASSES[label], name=name, group=path, split=split, version=stamp)
            )
    expected = NUM_OBJECTS[variant]
    note = f"The official files have {expected[0]} and {expected[1]} objects, these have {counts[0]} and {counts[1]}."
    return Found(objects, CLASSES, {}, [] if tuple(counts) == expected else [note])


def load(folder: Path, source: SourceObject) -> Shape:
    """Read one object, background included where the variant has it.

    Raises:
        RejectedError: The file is damaged.
    """
    (data,) = read_row(folder, source, "data")
    if data is None:
        raise RejectedError("unreadable", "the file has no data")
    return Shape(coord=data.astype(np.float32))


DATASET = ObjectDataset(
    card=CARD,
    variants=tuple(FILES),
    find=find,
    load=load,
    up="y",
    conventions=Conventions(frame="source", order="farthest", loader_transform="none"),
)
