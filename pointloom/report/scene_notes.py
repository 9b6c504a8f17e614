"""What a reader must know before quoting a number about scenes; written for the protocols and tables at hand."""

from collections.abc import Iterable, Mapping
from typing import Any

from pointloom.report.inputs import Arrays
from pointloom.report.notes import LABELS, SELECTION
from pointloom.report.sentences import count

Row = dict[str, Any]

MEASURES = {
    "scene_segmentation": "mIoU: intersection over union, mean over classes; overall accuracy: share of the labelled "
    "points whose class is right.",
    "detection": "AP25 and AP50: average precision of boxes that meet a true one with an IoU of at least 0.25 and 0.5, "
    "mean over classes; AR25 and AR50: recall of the same boxes.",
    "linear": "A linear layer on frozen features; mIoU: intersection over union, mean over classes.",
    "nearest": "The class of the most alike super-point of the training scenes; nothing is trained.",
    "instances": "Heads on frozen features, points grouped; AP50 and AP25: average precision of masks at an IoU of 0.5 "
    "and 0.25; AP: mean over 0.5, 0.55 to 0.9. Mean over the classes that occur.",
    "grounding": "The share of sentences for which the right one of the scene's true boxes is chosen. Unique: no other "
    "box there has its class; multiple: some have; by chance: a box is drawn.",
}
"""Protocol -> what its numbers are."""

SCORES_OF_CLASSES = {"detection": "AP25", "instances": "AP50"}
"""Protocol -> the score of a single class, where it is not the IoU."""

TESTED = {
    "in_training": "the in-training protocol (one point per voxel speaks for all points in it)",
    "precise": "the precise protocol (every point is seen at least once)",
}
COLLAPSED = 0.1
"""Share of the first spread of a teacher's features below which it says almost the same everywhere."""
COMPUTE = (
    "At equal epochs a pre-trained encoder has had more compute, because its pre-training is not counted; what it took "
    "is in the table of stages."
)
EPOCHS_OF_SHARES = (
    "Rows of different shares of the labelled scenes were trained for different numbers of epochs; compare models at "
    "one share, not one model along the shares."
)


def scene_notes(rows: list[Row], protocols: Iterable[Row], *, bootstrap: Row, num_test: int) -> list[str]:
    """Return the notes for a report on scenes.

    Args:
        rows: Rows of the tables.
        protocols: What was done for every result.
        bootstrap: Settings of the intervals.
        num_test: Test scenes.
    """
    if not rows:
        return []
    notes = [
        f"The test set has {count(num_test, 'scene')}. ± is the standard deviation over seeds; it does not contain the "
        "choice of the scenes.",
        f"Differences are paired: the same test scenes and seeds on both sides, {100 * bootstrap['confidence']:g} % "
        f"coverage. Those of mIoU and of the AP25 of boxes are resampled {bootstrap['resamples']:,} times over test "
        "scenes and seeds; all others are Student's intervals over seeds, wide for few seeds and blind to the choice "
        "of the scenes. An interval that holds 0 is “no proven difference”. Many intervals are shown: about one in "
        f"{round(1 / (1 - bootstrap['confidence']))} misses its true value by chance.",
        *_testing(list(protocols)),
        LABELS,
    ]
    tuned = [row for row in rows if row["epochs"] is not None]
    if any(row["trained"] for row in tuned):
        notes.append(COMPUTE)
    if any(len({row["epochs"] for row in tuned if row["name"] == name}) > 1 for name in {row["name"] for row in tuned}):
        notes.append(EPOCHS_OF_SHARES)
    return notes


def collapse_notes(curves: Mapping[str, Arrays]) -> list[str]:
    """Say of every pre-training with a teacher whether its features still differ from voxel to voxel.

    Args:
        curves: Name of a pre-training to the columns of its ``curves.csv``; ``std/level<l>`` is the spread.
    """
    notes = []
    for name, columns in curves.items():
        spreads = {key.removeprefix("std/level"): values for key, values in columns.items() if key.startswith("std/")}
        kept = {level: float(values[-1]) / max(float(values[0]), 1e-12) for level, values in spreads.items()}
        if not kept:
            continue
        least = min(kept, key=lambda level: kept[level])
        share = f"{100 * kept[least]:.0f} % of that of the first epoch at resolution {least}, the least of all"
        if kept[least] < COLLAPSED:
            notes.append(
                f"{name} has collapsed: its teacher says about the same everywhere (its features' spread ended at "
                f"{share}), and its loss means nothing. A lower rate or a higher momentum may help."
            )
        else:
            notes.append(f"No collapse in {name}: the spread of its teacher's features ended at {share}.")
    return notes


def _testing(protocols: list[Row]) -> list[str]:
    """Say how weights were selected, how points were classified, and what a seed covers."""
    found = [
        f"Selection “{rule}”: {SELECTION.get(rule, 'see the protocols below')}."
        for rule in sorted({str(protocol["selection"]) for protocol in protocols if protocol.get("selection")})
    ]
    for kind, tta, voxel in sorted(
        {(p["protocol"], p.get("tta", "none"), p["voxel_size"]) for p in protocols if p.get("protocol") in TESTED}
    ):
        votes = "no test-time augmentation" if tta == "none" else f"test-time augmentation as for {tta}"
        found.append(f"Segmentation was tested by {TESTED[kind]}, voxels of {100 * voxel:g} cm, {votes}.")
    covers = sorted({str(protocol["seed_covers"]) for protocol in protocols if protocol.get("seed_covers")})
    if covers:
        found.append("What a seed covers: " + ". Or: ".join(covers) + ". Each encoder was pre-trained once.")
    return found
