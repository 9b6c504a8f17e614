"""All surfaces of a furnished room as one list of coloured triangles that know what they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.synthetic import Draw
from pointloom.data.synthetic.draw import PAINTS, WOODS, Color
from pointloom.data.synthetic_rooms.plan import Placed, Plan

FLOOR, WALL, CEILING = -1, -2, -3


@dataclass(frozen=True, slots=True, eq=False)
class Surfaces:
    """Triangles of a room.

    Attributes:
        corners: (F, 3, 3) metres.
        color: (F, 3) RGB.
        owner: (F,) index into the plan's ``placed``, or ``FLOOR``, ``WALL``, ``CEILING``.
    """

    corners: NDArray[np.float64]
    color: NDArray[np.uint8]
    owner: NDArray[np.int32]


def surfaces(plan: Plan, *, ceiling: bool) -> Surfaces:
    """Collect the triangles of a room, walls and floor first."""
    quads, colors, owners = _shell(plan, ceiling=ceiling)
    corners = [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], *(_in_room(item) for item in plan.placed)]
    color = [np.array([*colors, *colors], dtype=np.uint8), *(item.thing.color for item in plan.placed)]
    counts = [len(item.thing.corners) for item in plan.placed]
    owner = np.concatenate([[*owners, *owners], np.repeat(np.arange(len(counts)), counts)])
    return Surfaces(np.concatenate(corners), np.concatenate(color), owner.astype(np.int32))


def _in_room(item: Placed) -> NDArray[np.float64]:
    cos, sin = math.cos(item.heading), math.sin(item.heading)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    standing = item.center - [0.0, 0.0, item.thing.size[2] / 2]
    placed: NDArray[np.float64] = item.thing.corners @ turn.T + standing
    return placed


def _shell(plan: Plan, *, ceiling: bool) -> tuple[NDArray[np.float64], list[Color], list[int]]:
    """Return floor, walls and, if wanted, the ceiling as rectangles (Q, 4, 3) with colours and owners."""
    x, y, z = plan.width / 2, plan.depth / 2, plan.height
    floor = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)]
    lid = [(a, b, z) for a, b, _ in floor]
    walls = [[floor[i], floor[(i + 1) % 4], lid[(i + 1) % 4], lid[i]] for i in range(4)]
    draw = plan.draw
    ground, paint = (
        _floor_color(draw),
        draw.shade(draw.choose([PAINTS[n] for n in ("white", "beige", "grey", "yellow")])),
    )
    colors = [ground, *(draw.shade(paint, spread=0.05) for _ in range(4))]
    rectangles, owners = [floor, *walls], [FLOOR, WALL, WALL, WALL, WALL]
    if ceiling:
        rectangles, colors, owners = [*rectangles, lid], [*colors, (240, 240, 238)], [*owners, CEILING]
    return np.array(rectangles, dtype=np.float64), colors, owners


def _floor_color(draw: Draw) -> Color:
    """Return a colour of wood, of tiles or of carpet."""
    return draw.shade(draw.choose([*WOODS.values(), *(PAINTS[n] for n in ("grey", "beige", "red", "blue", "green"))]))
