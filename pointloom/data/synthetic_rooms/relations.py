"""Spatial relations between the boxes of a room, as people in it would put them.

Left, right, in front and behind are seen by someone who stands in the door and looks straight into the room.
``docs/synthetic.md`` says what is meant. Sentences are only made where their object keeps a stricter limit and all
others miss a looser one, so that people with other ideas of "left" agree about them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from pointloom.data.scenes import SceneBoxes

CLEAR, LOOSE = 1.4, 0.7  # least ratio of the distance along a direction to that across it; 1 is meant
TOUCH, TOUCH_LOOSE = 0.05, 0.15  # metres between an underside and the top that it stands on, at most; 0.05 is meant
ABOVE, ABOVE_LOOSE = 0.3, 0.15  # metres from a top up to an underside, at least; 0.2 is meant
RIM, RIM_LOOSE = 0.15, 0.35  # metres that a middle above something may be beyond its rim; 0.25 is meant
NEARER = 0.25  # metres by which the closest is closer, the farthest farther than all others
LARGER = 1.25  # ratio of the volumes of the largest and the second, and of the second smallest and the smallest


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """A relation between all pairs of boxes.

    Attributes:
        words: What stands between the two nouns.
        clear: Whether box i is clearly in this relation to box j.
        loose: Whether somebody could say so.
    """

    words: str
    clear: Bool[np.ndarray, "k k"]
    loose: Bool[np.ndarray, "k k"]


def pairwise(boxes: SceneBoxes, door: int | None) -> list[Relation]:
    """Return the relations between all pairs of boxes; those that depend on the viewer need a door (its place)."""
    center, size = boxes.center.astype(np.float64), boxes.size.astype(np.float64)
    offset = center[:, None] - center[None]
    low, high = center[:, 2] - size[:, 2] / 2, center[:, 2] + size[:, 2] / 2
    rise = low[:, None] - high[None]
    outside = _outside(offset, size, boxes.heading.astype(np.float64))
    inside = outside < 0
    relations = [
        Relation("on", inside & (np.abs(rise) <= TOUCH), inside & (np.abs(rise) <= TOUCH_LOOSE)),
        Relation("above", (outside < RIM) & (rise > ABOVE), (outside < RIM_LOOSE) & (rise > ABOVE_LOOSE)),
    ]
    if door is not None:
        sin, cos = np.sin(float(boxes.heading[door])), np.cos(float(boxes.heading[door]))
        ahead = offset[..., :2] @ [sin, -cos]
        right = offset[..., :2] @ [-cos, -sin]
        pairs = (("left of", -right, ahead), ("right of", right, ahead), ("behind", ahead, right))
        others = np.arange(len(center)) != door
        seen = others[:, None] & others[None]
        for words, along, across in (*pairs, ("in front of", -ahead, right)):
            beside = np.abs(across)
            relations.append(Relation(words, seen & (along > CLEAR * beside), seen & (along > LOOSE * beside)))
    return relations


def distances(boxes: SceneBoxes) -> NDArray[np.float64]:
    """Return the distances (K, K) between the boxes' centres, seen from above."""
    center = boxes.center[:, :2].astype(np.float64)
    return np.asarray(np.linalg.norm(center[:, None] - center[None], axis=-1), dtype=np.float64)


def _outside(
    offset: NDArray[np.float64], size: NDArray[np.float64], heading: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far centre i is beyond the sides of box j, seen from above; negative inside of it."""
    cos, sin = np.cos(heading), np.sin(heading)
    x = np.abs(cos * offset[..., 0] + sin * offset[..., 1]) - size[:, 0] / 2
    y = np.abs(-sin * offset[..., 0] + cos * offset[..., 1]) - size[:, 1] / 2
    return np.maximum(x, y)
