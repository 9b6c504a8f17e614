"""Things to put into rooms: the parametric objects and the fittings, upright, centred and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.synthetic import CATEGORIES, Blueprint, Builder, Draw
from pointloom.data.synthetic_rooms.fittings import FITTINGS

CLASS_OF = {
    "bed": "bed",
    "bookshelf": "bookshelf",
    "cabinet": "cabinet",
    "chair": "chair",
    "desk": "desk",
    "sofa": "sofa",
    "table": "table",
    **dict.fromkeys(("bench", "bottle", "bowl", "lamp", "monitor", "mug", "plant", "stool", "vase"), "otherfurniture"),
    **{noun: noun for noun in FITTINGS},
}
"""Noun of a thing -> its class, with ScanNet's names."""

BUILDERS: dict[str, Builder] = {**{noun: CATEGORIES[noun] for noun in CLASS_OF if noun in CATEGORIES}, **FITTINGS}
CARRIERS = ("table", "desk", "cabinet", "counter")
TRIES = 40
MICROMETRES = 6  # decimals of a metre; hides the last bits in which maths libraries differ
LEAST_SURFACE = 0.2  # metres, either way, so that something can stand on it


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """Something in its own frame: it stands on z = 0, its bounds are centred on the z axis, its front is -Y.

    Attributes:
        noun: What it is called, a key of ``CLASS_OF``.
        words: Adjectives that are true of it: colour, material and shape.
        corners: (F, 3, 3) triangles in metres, counter-clockwise seen from outside.
        color: (F, 3) RGB of the triangles.
        size: (3,) lengths of its bounds.
        surface: Bounds (x low, y low, x high, y high) of a flat top on which things can stand, or None.
    """

    noun: str
    words: tuple[str, ...]
    corners: NDArray[np.float64]
    color: NDArray[np.uint8]
    size: NDArray[np.float64]
    surface: tuple[float, float, float, float] | None


def build(noun: str, draw: Draw, *, names: Sequence[str] = (), largest: Sequence[float] = ()) -> Thing | None:
    """Draw a thing.

    Args:
        noun: A key of ``BUILDERS``.
        draw: Decides.
        names: Styles to choose from, such as "coffee table"; all if there are none.
        largest: Lengths along x, y and z that it must not exceed; any if there are none.

    Returns:
        None where no such thing came up.
    """
    for _ in range(TRIES):
        plan = BUILDERS[noun](draw)
        if names and plan.name not in names:
            continue
        thing = _measured(noun, plan)
        if not len(largest) or (thing.size <= largest).all():
            return thing
    return None


def _measured(noun: str, plan: Blueprint) -> Thing:
    vertices = plan.body.vertices()
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    vertices = vertices - [*(low[:2] + high[:2]) / 2, low[2]]
    corners: NDArray[np.float64] = np.round(vertices, MICROMETRES)[plan.body.faces()]
    bounds = corners.reshape(-1, 3)
    words = dict.fromkeys((plan.finish.color, plan.finish.adjective, *plan.looks))
    return Thing(
        noun=noun,
        words=tuple(words),
        corners=corners,
        color=plan.body.face_colors(),
        size=np.ptp(bounds, axis=0),
        surface=_surface(corners, is_round=bool({"round", "oval"} & set(words))) if noun in CARRIERS else None,
    )


def _surface(corners: NDArray[np.float64], *, is_round: bool) -> tuple[float, float, float, float] | None:
    """Return the bounds of the highest horizontal triangles, inside of which a round top has no gaps."""
    height = corners[:, :, 2]
    flat = corners[(height >= height.max() - 1e-6).all(axis=1)].reshape(-1, 3)[:, :2]
    if not len(flat):
        return None
    low, high = flat.min(axis=0), flat.max(axis=0)
    if is_round:
        middle, half = (low + high) / 2, (high - low) / 2 * 0.7
        low, high = middle - half, middle + half
    if (high - low < LEAST_SURFACE).any():
        return None
    return tuple[Any, ...]((*low.tolist(), *high.tolist()))
