"""What the prepared store holds: one record and one set of points per object, failures, and the description."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_PART = 255
SPLITS = ("train", "test", "pretrain")


@dataclass(frozen=True)
class ObjectRecord:
    """One row of the index.

    Attributes:
        uid: Name that is unique in the store and safe as a file name.
        path: Source file relative to the source folder, or ``synthetic/...``.
        name: Short name for people.
        category: Class name, None where unknown.
        group: Variants of one object share it; a split never cuts a group.
        split: ``train``, ``test`` or ``pretrain`` (no labels, pre-training only).
        up_axis: Up axis of the source file.
        transform: Source to store, 4 x 4 row-major.
        sha256: Of the source file.
        num_faces: Triangles of the source, 0 for a point cloud.
        status: ``ok``, or warnings such as ``texture_missing`` joined by commas.
        attributes: Words that describe the object.
        captions: Sentences that describe the object.
    """

    uid: str
    path: str
    name: str
    category: str | None
    group: str
    split: str
    up_axis: str
    transform: tuple[float, ...]
    sha256: str
    num_faces: int
    status: str = "ok"
    attributes: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObjectPoints:
    """Points of one object, N of them, all arrays in the same farthest-point order.

    Attributes:
        coord: (N, 3) float32.
        normal: (N, 3), unit length, stored as float16.
        color: (N, 3) uint8, sRGB.
        segment: (N,) uint8 part ids, ``NO_PART`` where unknown; None for objects without parts.
    """

    coord: NDArray[np.float32]
    normal: NDArray[np.float32] | NDArray[np.float16]
    color: NDArray[np.uint8]
    segment: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Failure:
    """An input that was left out.

    Attributes:
        path: Relative to the source folder.
        reason: One word of ``quarantine.REASONS``.
        detail: A sentence for people.
    """

    path: str
    reason: str
    detail: str


@dataclass(frozen=True)
class StoreInfo:
    """What ``dataset.json`` says.

    Attributes:
        num_points: Points per object.
        classes: Class names in label order.
        source: ``folder``, ``synthetic``, or the name of a published data set.
        digest: SHA-256 over uids, labels, splits, source hashes and the parameters that shape the points.
        counts: Number of objects in total, per split, without a label, and with each warning.
        quarantined: Number of inputs left out.
        parts: Part names per category, in the order of the ids in ``segment``.
        notes: What the reader of a report should know about how the data was made.
        settings: Parameters that shape the points.
    """

    num_points: int
    classes: tuple[str, ...]
    source: str
    digest: str
    counts: dict[str, int]
    quarantined: int
    parts: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
