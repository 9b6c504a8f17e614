"""ModelNet40: CAD models of 40 categories, in the three layouts that the field uses."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pointloom.data.folds import load_plain
from pointloom.data.quarantine import RejectedError
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import (
    Archive,
    Card,
    Conventions,
    Found,
    ObjectDataset,
    Shape,
    check_files,
    find_root,
    read_lines,
    version,
    wrong_folder,
)
from pointloom.datasets.containers import read_labels, read_row
from pointloom.errors import DataError

RESAMPLED = "modelnet40_normal_resampled"
H5 = "modelnet40_ply_hdf5_2048"
DAT = "modelnet40_{split}_8192pts_fps.dat"
CLASSES = (
    *("airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain"),
    *("desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel"),
    *("monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool"),
    *("table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox"),
)
NUM_OBJECTS = {"resampled": (9_843, 2_468), "dat": (9_843, 2_468), "h5": (9_840, 2_468)}
_MEDIA = "https://shapenet.cs.stanford.edu/media"

CARD = Card(
    name="modelnet40",
    title="ModelNet40",
    task="classification, few-shot, linear SVM",
    size="12,311 models of 40 categories; resampled 1.6 GB zipped, h5 416 MB zipped, dat 2.4 GB",
    licence="copyright of the models is with their authors; for academic use (https://modelnet.cs.princeton.edu)",
    source=f"{_MEDIA}/{RESAMPLED}.zip (resampled), {_MEDIA}/{H5}.zip (h5); dat is in the data folders that "
    "https://github.com/Julie-tang00/Point-BERT (DATASET.md) and Point-MAE share",
    trees={
        "resampled": f"{RESAMPLED}/\n  modelnet40_shape_names.txt, modelnet40_train.txt, modelnet40_test.txt\n"
        "  airplane/airplane_0001.txt      x,y,z,nx,ny,nz, one point per line",
        "dat": f"{RESAMPLED}/\n  {DAT.format(split='train')}, {DAT.format(split='test')}",
        "h5": f"{H5}/\n  shape_names.txt\n  ply_data_train0.h5 ... ply_data_train4.h5, ply_data_test0.h5, "
        "ply_data_test1.h5      data (N, 2048, 3), label (N, 1)",
    },
    markers={"resampled": "modelnet40_train.txt", "dat": DAT.format(split="train"), "h5": "ply_data_train*.h5"},
    folders=(RESAMPLED, H5),
    archives={
        "resampled": Archive(url=f"{_MEDIA}/{RESAMPLED}.zip", folder=RESAMPLED, size_mb=1_640),
        "h5": Archive(
            url=f"{_MEDIA}/{H5}.zip",
            folder=H5,
            size_mb=416,
            md5=(
                ("ply_data_train0.h5", "3176385ffc31a7b6b5af22191fd920d1"),
                ("ply_data_train1.h5", "e3f613fb500559403b34925112754dc4"),
                ("ply_data_train2.h5", "0c56e233a090ff87c3049d4ce08e7d8b"),
                ("ply_data_train3.h5", "9d2af465adfa33a3285c369f3ca66c45"),
                ("ply_data_train4.h5", "dff38de489b2c41bfaeded86c2208984"),
                ("ply_data_test0.h5", "e9732e6d83b09e79e9a7617df058adee"),
                ("ply_data_test1.h5", "aba4b12a67c34391cc3c015a6f08ed4b"),
            ),
        ),
    },
)


def find(folder: Path, variant: str) -> Found:
    """Find all objects of a layout with the official split.

    Raises:
        DataError: The folder does not hold the layout.
    """
    objects, classes = {"resampled": _find_resampled, "dat": _find_dat, "h5": _find_h5}[variant](folder)
    counts = tuple(sum(o.split == split for o in objects) for split in ("train", "test"))
    expected = NUM_OBJECTS[variant]
    note = f"The official lists have {expected[0]} and {expected[1]} objects, these have {counts[0]} and {counts[1]}."
    return Found(objects, classes, {}, [] if counts == expected else [note])


def _find_resampled(folder: Path) -> tuple[list[SourceObject], tuple[str, ...]]:
    root = find_root(CARD, folder, "resampled")
    names = root / "modelnet40_shape_names.txt"
    check_files(CARD, folder, "resampled", [names, root / "modelnet40_test.txt"])
    classes = tuple(read_lines(names))
    objects = []
    for split in ("train", "test"):
        for name in read_lines(root / f"modelnet40_{split}.txt"):
            category = name.rpartition("_")[0]
            if category not in classes:
                what = f"{name} of modelnet40_{split}.txt belongs to no class of {names.name}"
                raise wrong_folder(CARD, folder, "resampled", what)
            path = (root / category / f"{name}.txt").relative_to(folder).as_posix()
            objects.append(SourceObject(path=path, category=category, name=name, group=path, split=split))
    check_files(CARD, folder, "resampled", [folder / o.path for o in objects])
    return [replace(o, version=version(folder / o.path)) for o in objects], classes


def _find_dat(folder: Path) -> tuple[list[SourceObject], tuple[str, ...]]:
    root = find_root(CARD, folder, "dat")
    objects = []
    for split in ("train", "test"):
        path = root / DAT.format(split=split)
        check_files(CARD, folder, "dat", [path])
        _, labels = _read_dat(path)
        objects += _rows(folder, path, labels, CLASSES, split)
    return objects, CLASSES


def _find_h5(folder: Path) -> tuple[list[SourceObject], tuple[str, ...]]:
    root = find_root(CARD, folder, "h5")
    names = root / "shape_names.txt"
    classes = tuple(read_lines(names)) if names.is_file() else CLASSES
    objects = []
    for split in ("train", "test"):
        files = sorted(root.glob(f"ply_data_{split}*.h5"))
        if not files:
            raise wrong_folder(CARD, folder, "h5", f"ply_data_{split}0.h5 is not in it")
        for path in files:
            objects += _rows(folder, path, read_labels(CARD, folder, "h5", path).tolist(), classes, split)
    return objects, classes


def _rows(folder: Path, path: Path, labels: list[int], classes: tuple[str, ...], split: str) -> list[SourceObject]:
    stamp, container = version(path), path.relative_to(folder).as_posix()
    if labels and not 0 <= min(labels) <= max(labels) < len(classes):
        raise DataError(f"{path}: labels {min(labels)} to {max(labels)}, expected 0 to {len(classes) - 1}")
    return [
        SourceObject(
            path=f"{container}#{row}",
            category=classes[label],
            name=f"{classes[label]} {split} {row}",
            group=f"{container}#{row}",
            split=split,
            version=stamp,
        )
        for row, label in enumerate(labels)
    ]


@lru_cache(maxsize=1)
def _read_dat(path: Path) -> tuple[list[Any], list[int]]:
    """Return the clouds and labels of a cached file; the last one is kept, because it must be read whole."""
    content = load_plain(path)
    if not isinstance(content, list | tuple) or len(content) != 2 or len(content[0]) != len(content[1]):
        raise DataError(f"{path}: expected a pair of lists of the same length, clouds (8192, 6) and labels")
    return list(content[0]), [int(np.asarray(label).reshape(-1)[0]) for label in content[1]]


def load(folder: Path, source: SourceObject) -> Shape:
    """Read one object.

    Raises:
        RejectedError: The file is damaged.
    """
    container, _, row = source.path.rpartition("#")
    if container.endswith(".h5"):
        data, normal = read_row(folder, source, "data", "normal")
        if data is None:
            raise RejectedError("unreadable", "the file has no data")
        return Shape(coord=data.astype(np.float32), normal=None if normal is None else normal.astype(np.float32))
    if container.endswith(".dat"):
        table = np.asarray(_read_dat(folder / container)[0][int(row)], dtype=np.float32)
    else:
        try:
            table = np.loadtxt(folder / source.path, delimiter=",", dtype=np.float32, ndmin=2)
        except ValueError as error:
            raise RejectedError("unreadable", str(error)) from error
    if table.ndim != 2 or table.shape[1] != 6:
        raise RejectedError("unreadable", f"expected 6 columns (x, y, z and normal), got shape {table.shape}")
    return Shape(coord=table[:, :3].copy(), normal=table[:, 3:].copy())


DATASET = ObjectDataset(
    card=CARD,
    variants=("resampled", "dat", "h5"),
    find=find,
    load=load,
    up="y",
    conventions=Conventions(frame="object", order="farthest", loader_transform="unit_sphere"),
    verbatim=("h5",),
    whole_file=("dat",),
)
