"""ModelNetFewshot: the community's ten folds per setting of ModelNet40, as pickles of plain arrays."""

from functools import lru_cache
from pathlib import Path

from pointloom.data.folds import Fold, FoldPart, load_fold
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import Card, Conventions, Found, ObjectDataset, Shape, version, wrong_folder
from pointloom.datasets.modelnet40 import CLASSES
from pointloom.errors import DataError

ROOT = "ModelNetFewshot"
NUM_FOLDS = 10
TEST_PER_CLASS = 20
SETTINGS = tuple((way, shot) for way in (5, 10) for shot in (10, 20))
VARIANTS = tuple(f"{way}way_{shot}shot/{fold}" for way, shot in SETTINGS for fold in range(NUM_FOLDS))
_TREE = f"""{ROOT}/
  5way_10shot/0.pkl ... 9.pkl          train and test: lists of (points (8192, 6), label, ModelNet40 label)
  5way_20shot/..., 10way_10shot/..., 10way_20shot/..."""

CARD = Card(
    name="modelnet_fewshot",
    title="ModelNetFewshot",
    task="few-shot classification",
    size="40 folds of 150 to 400 objects of ModelNet40; 2 GB",
    licence="as ModelNet40: copyright of the models is with their authors; for academic use",
    source="DATASET.md of https://github.com/Julie-tang00/Point-BERT",
    trees=dict.fromkeys(VARIANTS, _TREE),
    markers={variant: variant.replace("_", "*") + ".pkl" for variant in VARIANTS},
    folders=(ROOT,),
    archives={},
)


def fold_path(root: Path, *, way: int, shot: int, fold: int) -> Path:
    """Return the file of a fold; folders are found with and without the underscore that documents leave out.

    Args:
        root: ``ModelNetFewshot`` or the folder above it.
        way: Classes, 5 or 10.
        shot: Training objects per class, 10 or 20.
        fold: 0 to 9.

    Raises:
        DataError: There is no such fold.
    """
    variant = f"{way}way_{shot}shot/{fold}"
    if variant not in VARIANTS:
        raise DataError(f"few-shot folds exist for 5 and 10 way, 10 and 20 shot, fold 0 to 9; got {variant}")
    for parent in (root, root / ROOT):
        for name in (f"{way}way_{shot}shot", f"{way}way{shot}shot"):
            if (path := parent / name / f"{fold}.pkl").is_file():
                return path
    raise wrong_folder(CARD, root, variant, f"{variant}.pkl is not in it")


def find(folder: Path, variant: str) -> Found:
    """Find the objects of a fold, named by their ModelNet40 classes; labels are those of the fold.

    Raises:
        DataError: There is no such fold, or it contradicts itself.
    """
    setting, _, fold = variant.partition("/")
    way, shot = (int(word) for word in setting.replace("way_", " ").replace("shot", "").split())
    path = fold_path(folder, way=way, shot=shot, fold=int(fold))
    content = _read(path)
    classes: dict[int, str] = {}
    for part in (content.train, content.test):
        for label, original in zip(part.label.tolist(), part.original.tolist(), strict=True):
            if not 0 <= original < len(CLASSES) or classes.setdefault(label, CLASSES[original]) != CLASSES[original]:
                raise DataError(f"{path}: label {label} stands for more than one ModelNet40 class, or for none")
    if sorted(classes) != list(range(way)):
        raise DataError(f"{path}: expected the labels 0 to {way - 1}, got {sorted(classes)}")
    expected = (way * shot, way * TEST_PER_CLASS)
    counts = (len(content.train.points), len(content.test.points))
    note = f"The official fold has {expected[0]} and {expected[1]} objects, this one has {counts[0]} and {counts[1]}."
    objects = [
        *_objects(folder, path, "train", content.train, classes),
        *_objects(folder, path, "test", content.test, classes),
    ]
    return Found(objects, tuple(classes[k] for k in range(way)), {}, [] if counts == expected else [note])


def _objects(folder: Path, path: Path, split: str, part: FoldPart, classes: dict[int, str]) -> list[SourceObject]:
    container, stamp = path.relative_to(folder).as_posix(), version(path)
    return [
        SourceObject(
            path=f"{container}#{split}-{i}",
            category=classes[label],
            name=f"{classes[label]} {split} {i}",
            group=f"{container}#{split}-{i}",
            split=split,
            version=stamp,
        )
        for i, label in enumerate(part.label.tolist())
    ]


@lru_cache(maxsize=1)
def _read(path: Path) -> Fold:
    """Read a fold; the last one is kept, because it must be read whole."""
    return load_fold(path)


def load(folder: Path, source: SourceObject) -> Shape:
    """Read one object."""
    container, _, which = source.path.rpartition("#")
    split, _, row = which.partition("-")
    fold = _read(folder / container)
    points = (fold.train if split == "train" else fold.test).points[int(row)]
    return Shape(coord=points[:, :3].copy(), normal=points[:, 3:6].copy() if points.shape[1] == 6 else None)


DATASET = ObjectDataset(
    card=CARD,
    variants=VARIANTS,
    find=find,
    load=load,
    up="y",
    conventions=Conventions(frame="object", order="farthest", loader_transform="unit_sphere"),
    whole_file=VARIANTS,
)
