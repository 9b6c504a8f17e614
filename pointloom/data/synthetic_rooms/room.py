"""One furnished, scanned and described room."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.data.synthetic import Draw
from pointloom.data.synthetic_rooms.plan import Placed
from pointloom.data.synthetic_rooms.recipes import KINDS, furnished
from pointloom.data.synthetic_rooms.sensor import Scan, scan
from pointloom.data.synthetic_rooms.sentences import refer
from pointloom.data.synthetic_rooms.surfaces import FLOOR, WALL, surfaces
from pointloom.data.synthetic_rooms.things import CLASS_OF, Thing

ROOM_CLASSES = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "desk",
    "curtain",
    "refrigerator",
    "shower curtain",
    "toilet",
    "sink",
    "bathtub",
    "otherfurniture",
)
"""The 20 classes of ScanNet's benchmark, in its order; a ceiling has none of them."""

BOX_CLASSES = ROOM_CLASSES[2:]
"""The 18 classes of ScanNet's detection benchmark."""


@dataclass(frozen=True, kw_only=True)
class RoomSettings:
    """How rooms are made.

    Attributes:
        num_points: Points of each room.
        kinds: Kinds of rooms that take turns; names in ``KINDS``.
        num_cameras: Places from which a room is scanned.
        falloff: The density of points falls with this power of the distance from the cameras, 0 to 2.
        noise: Standard deviation along the ray, in metres per metre of distance; never more than three of them.
        ceiling: Whether there is one; its points have no class.
        clutter: Whether small things stand on tops and on the floor.
        turned: Whether the room is turned by any angle; else its walls run along the axes.
        sentences_per_object: At most so many refer to each object.
        least_points: Objects with fewer points are not labelled: -1, no box, no sentence.
    """

    num_points: int = 32768
    kinds: tuple[str, ...] = tuple(KINDS)
    num_cameras: int = 3
    falloff: float = 1.0
    noise: float = 0.002
    ceiling: bool = False
    clutter: bool = True
    turned: bool = False
    sentences_per_object: int = 3
    least_points: int = 10

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"kinds of rooms: got {list(self.kinds)}, choose among {', '.join(KINDS)}")
        if self.num_points < 1 or self.num_cameras < 1 or self.least_points < 1 or self.sentences_per_object < 0:
            raise ValueError(
                "num_points, num_cameras and least_points must be at least 1 and sentences_per_object at least 0, got "
                f"{self.num_points}, {self.num_cameras}, {self.least_points} and {self.sentences_per_object}"
            )
        if not 0 <= self.falloff <= 2 or not 0 <= self.noise <= 0.05:
            raise ValueError(f"falloff must be in [0, 2] and noise in [0, 0.05], got {self.falloff} and {self.noise}")


@dataclass(frozen=True, eq=False)
class Room:
    """A room and what its objects are.

    Attributes:
        kind: A key of ``KINDS``.
        scene: Points, labels, boxes and sentences.
        things: The objects, in the order of the scene's boxes and instances.
    """

    kind: str
    scene: Scene
    things: tuple[Thing, ...]


def generate_room(index: int, *, seed: int, settings: RoomSettings) -> Room:
    """Make room ``index`` of the endless collection ``seed``; no room depends on another one.

    Raises:
        ValueError: index or seed is negative.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed of a room must be 0 or more, got index={index}, seed={seed}")
    kind = settings.kinds[index % len(settings.kinds)]
    rng = np.random.default_rng([seed, index, zlib.crc32(kind.encode())])
    draw = Draw(rng)
    plan = furnished(kind, draw, clutter=settings.clutter)
    scanned = scan(
        plan,
        surfaces(plan, ceiling=settings.ceiling),
        rng=rng,
        num_points=settings.num_points,
        num_cameras=settings.num_cameras,
        falloff=settings.falloff,
        noise=settings.noise,
    )
    counts = np.bincount(scanned.owner[scanned.owner >= 0], minlength=len(plan.placed))
    seen = np.flatnonzero(counts >= settings.least_points)
    placed = [plan.placed[i] for i in seen]
    segment, instance = _labels(scanned.owner, plan.placed, seen)
    angle = draw.between(0, 2 * math.pi) if settings.turned else 0.0
    boxes = _turned_boxes(_boxes(placed), angle)
    things = tuple(item.thing for item in placed)
    scanned = _turned(scanned, angle)
    name = f"room-{seed}-{index:06d}"
    scene = Scene(
        name=name,
        coord=scanned.coord,
        color=scanned.color,
        normal=scanned.normal,
        segment=segment,
        instance=instance,
        boxes=boxes,
        sentences=refer(things, boxes, draw, per_object=settings.sentences_per_object),
        group=name,
        aligned=not settings.turned,
    )
    return Room(kind, scene, things)


def _labels(
    owner: NDArray[np.int32], placed: list[Placed], seen: NDArray[np.int64]
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """Return classes (N,) and instances (N,); walls and floor are no instances, and what is hardly seen is neither."""
    number = np.full(len(placed) + 1, -1, dtype=np.int32)
    number[seen] = np.arange(len(seen))
    label = np.full(len(placed) + 1, -1, dtype=np.int16)
    label[seen] = [ROOM_CLASSES.index(CLASS_OF[placed[i].thing.noun]) for i in seen]
    thing = np.maximum(owner, -1)
    segment = label[thing]
    segment[owner == FLOOR] = ROOM_CLASSES.index("floor")
    segment[owner == WALL] = ROOM_CLASSES.index("wall")
    return segment, number[thing]


def _boxes(placed: list[Placed]) -> SceneBoxes:
    return SceneBoxes(
        center=np.array([item.center for item in placed], dtype=np.float32).reshape(-1, 3),
        size=np.array([item.thing.size for item in placed], dtype=np.float32).reshape(-1, 3),
        heading=np.array([item.heading for item in placed], dtype=np.float32),
        label=np.array([BOX_CLASSES.index(CLASS_OF[item.thing.noun]) for item in placed], dtype=np.int64),
        instance=np.arange(len(placed)),
    )


def _matrix(angle: float) -> NDArray[np.float32]:
    """Return what turns row vectors about +Z."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=np.float32)


def _turned(scanned: Scan, angle: float) -> Scan:
    if angle == 0:
        return scanned
    turn = _matrix(angle)
    return replace(scanned, coord=scanned.coord @ turn, normal=scanned.normal @ turn)


def _turned_boxes(boxes: SceneBoxes, angle: float) -> SceneBoxes:
    """Return the boxes turned by an angle, with headings from -pi to pi."""
    heading = np.mod(boxes.heading.astype(np.float64) + angle + math.pi, 2 * math.pi) - math.pi
    return replace(boxes, center=boxes.center @ _matrix(angle), heading=heading.astype(np.float32))
