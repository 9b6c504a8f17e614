"""What happens to a scene's points together with its boxes: crops, flips, turns, votes; NumPy, seeded."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.ops import axis_aligned, points_in_boxes

Float = NDArray[np.float32]

NUM_VOTES = 3
"""Centres that a point can vote for."""

_TRIES = 100


@dataclass(frozen=True)
class BoxedPoints:
    """Points and boxes of one scene on their way to a detector.

    Attributes:
        coord: (N, 3) metres.
        color: (N, 3) in [0, 1].
        normal: (N, 3) unit normals, 0 where unknown.
        height: (N,) metres above the floor.
        instance: (N,) instance, -1 where there is none.
        boxes: (K, 7) centre, full lengths, heading.
        label: (K,) class.
        box_instance: (K,) the points' instance, -1 where boxes and points are not tied.
    """

    coord: Float
    color: Float
    normal: Float
    height: Float
    instance: NDArray[np.int64]
    boxes: Float
    label: NDArray[np.int64]
    box_instance: NDArray[np.int64]

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "BoxedPoints":
        """Return some of the points with all boxes."""
        of_points = ("coord", "color", "normal", "height", "instance")
        return replace(self, **{name: getattr(self, name)[index] for name in of_points})

    def with_boxes(self, index: NDArray[np.bool_]) -> "BoxedPoints":
        """Return all points with some of the boxes."""
        of_boxes = ("boxes", "label", "box_instance")
        return replace(self, **{name: getattr(self, name)[index] for name in of_boxes})


@dataclass(frozen=True)
class Cuboid:
    """Random crops of 3DETR (section 4.1 and code).

    Attributes:
        min_points: A crop must have more points than this.
        min_crop: Smallest part of the scene's extent along an axis.
        aspect: Of the three pairs of such parts one must have a ratio of at least this.
    """

    min_points: int
    min_crop: float
    aspect: float


def crop(scene: BoxedPoints, how: Cuboid, rng: np.random.Generator) -> BoxedPoints:
    """Keep an upright block about a random point, and the boxes whose centre is between its points.

    A block is tried again, at most a hundred times, if it has too few points, or no box although the scene has some;
    then the scene stays whole.
    """
    extent = np.ptp(scene.coord, axis=0)
    for _ in range(_TRIES):
        part = rng.uniform(how.min_crop, 1.0, 3)
        ratios = [min(part[i], part[j]) / max(part[i], part[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        if max(ratios) < how.aspect:
            continue
        center = scene.coord[rng.integers(len(scene.coord))]
        inside = (np.abs(scene.coord - center) <= extent * part / 2).all(axis=1)
        if int(inside.sum()) <= how.min_points:
            continue
        low, high = scene.coord[inside].min(axis=0), scene.coord[inside].max(axis=0)
        kept = ((scene.boxes[:, :3] >= low) & (scene.boxes[:, :3] <= high)).all(axis=1)
        if kept.any() or len(kept) == 0:
            return scene.take(inside).with_boxes(kept)
    return scene


def flip(scene: BoxedPoints, axis: int) -> BoxedPoints:
    """Mirror a scene in x (axis 0) or y (axis 1)."""
    mirror = np.ones(3, dtype=np.float32)
    mirror[axis] = -1
    boxes = scene.boxes.copy()
    boxes[:, :3] *= mirror
    boxes[:, 6] = (np.pi if axis == 0 else 0.0) - boxes[:, 6]
    return replace(scene, coord=scene.coord * mirror, normal=scene.normal * mirror, boxes=boxes)


def turn(scene: BoxedPoints, angle: float) -> BoxedPoints:
    """Turn a scene about the up axis by radians, counter-clockwise seen from above."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=np.float32)
    boxes = scene.boxes.copy()
    boxes[:, :3] = boxes[:, :3] @ matrix.T
    boxes[:, 6] += np.float32(angle)
    return replace(scene, coord=scene.coord @ matrix.T, normal=scene.normal @ matrix.T, boxes=boxes)


def scale(scene: BoxedPoints, factor: float) -> BoxedPoints:
    """Make a scene larger or smaller."""
    boxes = scene.boxes.copy()
    boxes[:, :6] *= np.float32(factor)
    number = np.float32(factor)
    return replace(scene, coord=scene.coord * number, height=scene.height * number, boxes=boxes)


def upright(boxes: Float) -> Float:
    """Return the smallest axis-aligned boxes around boxes: turned ones grow."""
    hulls: Float = axis_aligned(torch.from_numpy(boxes)).numpy()
    return hulls


def votes(scene: BoxedPoints) -> tuple[Float, NDArray[np.bool_]]:
    """Return (N, 3, 3) offsets to the centres of a point's objects, and (N,) whether it has one.

    Where boxes are tied to instances, a point votes for the box of its instance. Where none is, it votes for the boxes
    it is in, the first three of them. A point with fewer repeats its first.

    Note:
        VoteNet's code for ScanNet votes for the middle of an instance's points, which is the box's centre there too.
    """
    num = len(scene.coord)
    if len(scene.boxes) == 0:
        return np.zeros((num, NUM_VOTES, 3), dtype=np.float32), np.zeros(num, dtype=np.bool_)
    if (scene.box_instance >= 0).any():
        which, inside = _by_instance(scene)
    else:
        which, inside = _by_box(scene)
    offset = scene.boxes[which, :3] - scene.coord[:, None]
    offset[~inside] = 0
    return offset, inside


def _by_instance(scene: BoxedPoints) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    order = np.argsort(scene.box_instance)
    place = np.searchsorted(scene.box_instance[order], scene.instance).clip(max=len(order) - 1)
    which = order[place]
    inside = (scene.box_instance[which] == scene.instance) & (scene.instance >= 0)
    return np.repeat(which[:, None], NUM_VOTES, axis=1), inside


def _by_box(scene: BoxedPoints) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    which = np.zeros((len(scene.coord), NUM_VOTES), dtype=np.int64)
    count = np.zeros(len(scene.coord), dtype=np.int64)
    coord, boxes = torch.from_numpy(scene.coord), torch.from_numpy(scene.boxes)
    for number in range(len(boxes)):  # one box at a time: memory stays that of the points
        inside = points_in_boxes(coord, boxes[number : number + 1])[:, 0].numpy()
        points = np.flatnonzero(inside & (count < NUM_VOTES))
        which[points, count[points]] = number
        count[points] += 1
    rank = np.arange(NUM_VOTES)
    repeated = np.where(rank < count[:, None], which, which[:, :1])
    return repeated, count > 0
