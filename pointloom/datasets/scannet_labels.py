"""ScanNet's sets of classes, and its table from the annotators' words to their numbers."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pointloom.errors import DataError

NYU40 = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9,
    "bookshelf": 10, "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "refrigerator": 24, "shower curtain": 28,
    "toilet": 33, "sink": 34, "bathtub": 36, "otherfurniture": 39,
}  # fmt: skip
"""The 20 classes of the benchmark with their numbers among NYU's 40."""

ALIASES = {"refridgerator": "refrigerator", "showercurtrain": "shower curtain", "garbagebin": "otherfurniture"}
"""Names of the same classes in VoteNet's and other code."""

NYU40_HIGHEST = 40
TABLE = "scannetv2-labels.combined.tsv"
STUFF = ("wall", "floor")

IDS_200 = (
    *range(1, 12), *range(13, 20), *range(21, 25), *range(26, 30), *range(31, 37), *range(38, 43), *range(44, 53),
    *range(54, 60), *range(62, 81), 82, 84, *range(86, 91), 93, *range(95, 108), 110, 112, 115, 116, 118, 120, 121, 122,
    125, 128, 130, 131, 132, 134, 136, *range(138, 142), 145, 148, 154, 155, 156, 157, 159, 161, 163, 165, 166,
    *range(168, 171), 177, 180, 185, 188, 191, 193, 195, 202, 208, 213, 214, 221, 229, 230, 232, 233, 242, 250, 261,
    264, 276, 283, 286, 300, 304, 312, 323, 325, 331, 342, 356, 370, 392, 395, 399, 408, 417, 488, 540, 562, 570, 572,
    581, 609, 748, 776, 1156, *range(1163, 1177), *range(1178, 1192),
)  # fmt: skip
"""ScanNet200's classes in label order, as numbers of column ``id`` of the table."""


@dataclass(frozen=True)
class LabelSet:
    """Classes of points and boxes.

    Attributes:
        classes: Names in label order.
        ids: Their numbers, in the table's column ``column``.
        box_classes: Names of the classes that have boxes: all but wall and floor.
        column: ``nyu40id`` or ``id``.
    """

    classes: tuple[str, ...]
    ids: tuple[int, ...]
    box_classes: tuple[str, ...]
    column: str

    @property
    def boxed(self) -> list[int]:
        """Return the places in ``classes`` of the classes that have boxes."""
        return [self.classes.index(name) for name in self.box_classes]


_THINGS = tuple(name for name in NYU40 if name not in STUFF)
CLASSES_20 = LabelSet(tuple(NYU40), tuple(NYU40.values()), _THINGS, "nyu40id")
CLASSES_18 = LabelSet(_THINGS, tuple(NYU40[name] for name in _THINGS), _THINGS, "nyu40id")


@dataclass(frozen=True)
class LabelTable:
    """ScanNet's table of labels.

    Attributes:
        nyu40: Annotators' words to NYU's 40 classes.
        id: Annotators' words to the column ``id``.
        category: Column ``id`` to its name.
    """

    nyu40: dict[str, int]
    id: dict[str, int]
    category: dict[int, str]

    def classes_200(self) -> LabelSet:
        """Return ScanNet200's classes."""
        names = tuple(self.category[i] for i in IDS_200)
        return LabelSet(names, IDS_200, tuple(name for name in names if name not in STUFF), "id")

    def numbers(self, column: str) -> dict[str, int]:
        """Return annotators' words to a column's numbers."""
        return self.nyu40 if column == "nyu40id" else self.id


def read_label_table(path: Path) -> LabelTable:
    """Read ``scannetv2-labels.combined.tsv``.

    Raises:
        DataError: It is damaged, or lacks classes.
    """
    nyu40: dict[str, int] = {}
    ids: dict[str, int] = {}
    category: dict[int, str] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                nyu40[row["raw_category"]], ids[row["raw_category"]] = int(row["nyu40id"]), int(row["id"])
                category.setdefault(int(row["id"]), row["category"])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}: {error}); get the table again") from error
    if missing := sorted(set(IDS_200) - set(category)):
        raise DataError(
            f"{path}: lacks {len(missing)} of the 200 classes, such as id {missing[0]}; it is from before ScanNet200, "
            "get the present one"
        )
    return LabelTable(nyu40, ids, category)


def nyu40_ids(classes: Sequence[str]) -> list[int]:
    """Return NYU's numbers of classes.

    Raises:
        DataError: One is not among ScanNet's 20.
    """
    names = [ALIASES.get(name, name) for name in classes]
    if odd := [name for name in names if name not in NYU40]:
        raise DataError(f"class {odd[0]!r} is not among ScanNet's 20 classes; known: {', '.join(NYU40)}")
    return [NYU40[name] for name in names]
