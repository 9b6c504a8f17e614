"""From an object of a published data set to a prepared object: turn up, order, fill up."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.clouds import Cloud
from pointloom.data.intake import TO_Z_UP, object_frame
from pointloom.data.materials import NEUTRAL
from pointloom.data.records import NO_PART, ObjectPoints, ObjectRecord
from pointloom.data.sampling import estimate_normals
from pointloom.data.sources import SourceObject
from pointloom.datasets.card import ObjectDataset, Shape

VERSION = 1
"""Raised whenever the same file and parameters give other points."""


@dataclass(frozen=True)
class DatasetIntake:
    """How objects of a data set become prepared objects.

    All points are put into farthest-point order from the first one, unless the conventions keep the file's order, and
    the first ``num_points`` kept; a cloud with fewer is filled up with its own points again, which come last and have
    no part.

    Attributes:
        dataset: What to read.
        variant: Of the data set.
        folder: Where it is.
        num_points: Points per object.
        up: ``auto`` for the data set's own up axis, or an axis.
    """

    dataset: ObjectDataset
    variant: str
    folder: Path
    num_points: int
    up: str

    def key(self, source: SourceObject) -> str:
        """Return what the prepared points depend on, as a hash."""
        parts = [VERSION, self.dataset.card.name, self.variant, self.num_points, self.up, source]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]

    def __call__(self, source: SourceObject) -> tuple[ObjectRecord, ObjectPoints]:
        """Prepare one object.

        Raises:
            RejectedError: The object cannot be used.
        """
        from pointloom.kernels import fps_order

        conventions = self.dataset.conventions_of(self.variant)
        shape = self.dataset.load(self.folder, source)
        Cloud(shape.coord.astype(np.float64)).check()
        up = self.dataset.up if self.up == "auto" else self.up
        transform = np.eye(4)
        transform[:3, :3] = TO_Z_UP[up]
        if conventions.frame == "object":
            transform = object_frame(shape.coord.astype(np.float64), up)
        coord = (shape.coord.astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]).astype(np.float32)
        order = fps_order(coord) if conventions.order == "farthest" else np.arange(len(coord))
        chosen = order[np.arange(self.num_points) % len(order)]
        record = ObjectRecord(
            uid=source.uid,
            path=source.path,
            name=source.name,
            category=source.category,
            group=source.group,
            split=source.split,
            up_axis=up,
            transform=tuple(transform.ravel().tolist()),
            sha256=_digest(shape),
            num_faces=0,
            status=_status(len(order), self.num_points),
        )
        color = np.full((self.num_points, 3), NEUTRAL, dtype=np.uint8)
        normal = _normals(shape, coord, chosen, up)
        return record, ObjectPoints(coord[chosen], normal, color, _segment(shape, chosen))


def _normals(shape: Shape, coord: NDArray[np.float32], chosen: NDArray[np.int64], up: str) -> NDArray[np.float32]:
    if shape.normal is None:
        return estimate_normals(coord.astype(np.float64), coord[chosen].astype(np.float64))
    turned = shape.normal[chosen] @ TO_Z_UP[up].T.astype(np.float32)
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    return np.where(length > 1e-12, turned / np.maximum(length, 1e-12), np.array([0, 0, 1])).astype(np.float32)


def _segment(shape: Shape, chosen: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    if shape.segment is None:
        return None
    segment = shape.segment[chosen]
    segment[len(shape.coord) :] = NO_PART
    return segment


def _status(available: int, num_points: int) -> str:
    if available < num_points:
        return "points_repeated"
    return "points_left_out" if available > num_points else "ok"


def _digest(shape: Shape) -> str:
    arrays = [a for a in (shape.coord, shape.normal, shape.segment) if a is not None]
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
