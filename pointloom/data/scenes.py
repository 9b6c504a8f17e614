"""One scene in memory: points with colours and labels, boxes, sentences. Sizes in metres, +Z up, right-handed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SceneBoxes:
    """Boxes of the objects of a scene.

    Attributes:
        center: (K, 3) float32.
        size: (K, 3) float32, full lengths along the box's own axes.
        heading: (K,) float32 radians, turned counter-clockwise seen from above; 0 for axis-aligned boxes.
        label: (K,) int64, place in the store's ``box_classes``.
        instance: (K,) int64, the points' ``instance``; -1 where a data set does not tie boxes to points.
    """

    center: NDArray[np.float32]
    size: NDArray[np.float32]
    heading: NDArray[np.float32]
    label: NDArray[np.int64]
    instance: NDArray[np.int64]


@dataclass(frozen=True)
class Sentence:
    """A sentence that refers to one object of a scene.

    Attributes:
        text: The sentence.
        instance: The points' ``instance`` of the object.
        unique: Whether the scene has no other object of its class (ScanRefer's Unique against Multiple).
    """

    text: str
    instance: int
    unique: bool


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        name: Unique in its store.
        coord: (N, 3) float32 metres.
        color: (N, 3) uint8, None where the scan has none.
        normal: (N, 3) float32 unit vectors, None where unknown.
        segment: (N,) int16, place in the store's ``classes``, -1 where unknown or ignored.
        instance: (N,) int32, unique inside the scene, -1 where there is none.
        superpoint: (N,) int32 over-segmentation, None where there is none.
        boxes: Boxes of the objects; None where the data set has none.
        sentences: What refers to its objects.
        split: ``train``, ``test`` or ``pretrain`` (no labels known).
        group: What must not be divided between splits: area, building.
        aligned: Whether the axes were turned along the walls; boxes and features of the two kinds never mix.
    """

    name: str
    coord: NDArray[np.float32]
    color: NDArray[np.uint8] | None
    normal: NDArray[np.float32] | None
    segment: NDArray[np.int16]
    instance: NDArray[np.int32]
    superpoint: NDArray[np.int32] | None = None
    boxes: SceneBoxes | None = None
    sentences: tuple[Sentence, ...] = ()
    split: str = "train"
    group: str = ""
    aligned: bool = False
