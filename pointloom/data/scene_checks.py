"""What must hold of every stored scene, and what is said of the unusual ones."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scenes import Scene, SceneBoxes

MAX_EXTENT = 200.0
"""Metres; the longest side of a larger scene is taken for a number of other units."""


FAR = 8192.0
"""Metres from the origin from which on single precision does not tell millimetres apart."""


def near_origin(coord: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return coordinates in single precision, and what was taken off: whole metres where they are far away (maps)."""
    corner = np.zeros(3)
    if len(coord) and np.abs(coord).max() >= FAR:
        corner = np.floor(coord.min(axis=0).astype(np.float64))
    return (coord - corner).astype(np.float32), corner


def check_scene(scene: Scene, *, num_classes: int, num_box_classes: int) -> None:
    """Check that a scene can be used.

    Raises:
        RejectedError: It has no points, points that are not finite or all in one place, arrays of different lengths,
            labels out of range, or it is too large to be in metres.
    """
    num = len(scene.coord)
    if num == 0:
        raise RejectedError("empty", f"{scene.name} has no points")
    finite = np.isfinite(scene.coord).all(axis=1)
    if not finite.all():
        raise RejectedError("not_finite", f"{int((~finite).sum())} of {num} points of {scene.name} are NaN or infinite")
    extent = float(np.ptp(scene.coord, axis=0).max())
    if extent <= 1e-6:
        raise RejectedError("zero_extent", f"all {num} points of {scene.name} are in one place")
    if extent > MAX_EXTENT:
        raise RejectedError(
            "wrong_units",
            f"{scene.name} is {extent:.0f} m long, more than {MAX_EXTENT:g}; if its files are in other units, convert "
            "them, or set prepare.scenes.unit (source scans)",
        )
    _check_lengths(scene)
    if scene.normal is not None and not np.isfinite(scene.normal).all():
        raise RejectedError("not_finite", f"some normals of {scene.name} are NaN or infinite")
    _check_range(scene.name, "segment", scene.segment, num_classes)
    if len(scene.instance) and scene.instance.min() < -1:
        raise RejectedError("wrong_labels", f"{scene.name}: instance goes down to {scene.instance.min()}, expected -1")
    if scene.boxes is not None:
        _check_range(scene.name, "box label", scene.boxes.label, num_box_classes, lowest=0)


def _check_lengths(scene: Scene) -> None:
    for name in ("color", "normal", "segment", "instance", "superpoint"):
        array = getattr(scene, name)
        if array is not None and len(array) != len(scene.coord):
            raise RejectedError("wrong_labels", f"{scene.name}: {len(scene.coord)} points, but {len(array)} of {name}")
    if scene.boxes is not None:
        lengths = {name: len(array) for name, array in vars(scene.boxes).items()}
        if len(set(lengths.values())) > 1:
            raise RejectedError("wrong_labels", f"{scene.name}: boxes have arrays of different lengths: {lengths}")


def _check_range(scene: str, what: str, labels: NDArray[np.generic], num: int, *, lowest: int = -1) -> None:
    values = labels.astype(np.int64)
    if len(values) and not lowest <= values.min() <= values.max() < num:
        raise RejectedError(
            "wrong_labels",
            f"{scene}: {what} goes from {values.min()} to {values.max()}, expected {lowest} to {num - 1}",
        )


def without_empty_boxes(scene: Scene) -> Scene:
    """Leave out boxes without a volume or with numbers that are not finite: nothing can overlap with them."""
    if scene.boxes is None:
        return scene
    boxes = scene.boxes
    numbers = np.column_stack([boxes.center, boxes.size, boxes.heading])
    kept = np.isfinite(numbers).all(axis=1) & (boxes.size > 0).all(axis=1)
    return replace(scene, boxes=SceneBoxes(**{name: array[kept] for name, array in vars(boxes).items()}))


def oddities(scene: Scene) -> list[str]:
    """Return what is unusual about a scene, keys of ``ODDITIES``."""
    labelled = bool((scene.segment >= 0).any())
    found = {
        "without_color": scene.color is None,
        "without_normals": scene.normal is None,
        "without_labels": not labelled,
        "without_objects": bool((scene.instance < 0).all()) if scene.boxes is None else len(scene.boxes.label) == 0,
        "instances_without_classes": not labelled and bool((scene.instance >= 0).any()),
    }
    return [name for name, holds in found.items() if holds]


ODDITIES = {
    "without_color": "have no colour; they are grey to every network",
    "without_normals": "have no normals; networks on voxels see 0 in their place",
    "without_labels": "have no labelled point",
    "without_objects": "have no object",
    "instances_without_classes": "have instances without classes; their instances are kept, but make no boxes",
}


def oddity_notes(counts: Counter[str], num_scenes: int) -> list[str]:
    """Say how many scenes are unusual, a sentence per kind."""
    return [f"{counts[name]} of {num_scenes} scenes {text}." for name, text in ODDITIES.items() if counts[name]]


def boxes_of_instances(scene: Scene, *, classes: Iterable[int]) -> SceneBoxes:
    """Return the axis-aligned boxes of the instances whose class has boxes.

    An instance has the class of most of its points; points without a class do not vote.

    Args:
        scene: With instances.
        classes: The places in the store's ``classes`` that have boxes, in order of ``box_classes``.
    """
    place = {label: i for i, label in enumerate(classes)}
    inside = scene.instance >= 0
    names, owner = np.unique(scene.instance[inside], return_inverse=True)
    coord, segment = scene.coord[inside], scene.segment[inside].astype(np.int64)
    low = np.full((len(names), 3), np.inf, dtype=np.float32)
    high = np.full((len(names), 3), -np.inf, dtype=np.float32)
    np.minimum.at(low, owner, coord)
    np.maximum.at(high, owner, coord)
    votes = np.zeros((len(names), max(int(segment.max(initial=-1)) + 1, 1)), dtype=np.int64)
    np.add.at(votes, (owner[segment >= 0], segment[segment >= 0]), 1)
    winner = np.where(votes.max(axis=1) > 0, votes.argmax(axis=1), -1)
    label = np.array([place.get(int(w), -1) for w in winner], dtype=np.int64)
    kept = (label >= 0) & (high > low).all(axis=1)
    return SceneBoxes(
        center=((low[kept] + high[kept]) / 2).astype(np.float32),
        size=high[kept] - low[kept],
        heading=np.zeros(int(kept.sum()), dtype=np.float32),
        label=label[kept],
        instance=names[kept].astype(np.int64),
    )
