"""A room while it is being furnished: where things stand, and whether another one still fits.

The room is centred at the origin, its floor is z = 0 and its walls run along the axes. Wall 0 is at +y, then counter-
clockwise; ``k * 90`` degrees is the heading of things with their backs against wall k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.scene_boxes import footprints, footprints_overlap
from pointloom.data.synthetic import Draw
from pointloom.data.synthetic.primitives import Number
from pointloom.data.synthetic_rooms.things import Thing, build

CLEARANCE = 0.01  # metres between things, all around
TRIES = 12


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A thing at its place.

    Attributes:
        thing: What.
        center: (3,) of its box.
        heading: Radians; its front looks along (sin heading, -cos heading).
    """

    thing: Thing
    center: NDArray[np.float64]
    heading: float

    def at(self, x: Number, y: Number) -> tuple[float, float]:
        """Return where a place (x, y) of the thing's own frame is in the room."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return float(self.center[0] + cos * x - sin * y), float(self.center[1] + sin * x + cos * y)


class Plan:
    """A rectangular room with its things.

    Attributes:
        width: Along x, in metres.
        depth: Along y.
        height: Of the walls.
        placed: What stands, hangs or lies in it so far; boxes do not overlap.
    """

    def __init__(self, draw: Draw, *, width: float, depth: float, height: float) -> None:
        self.draw = draw
        self.width, self.depth, self.height = width, depth, height
        self.placed: list[Placed] = []
        self._taken: list[tuple[NDArray[np.float64], float, float]] = []

    def is_free(self, center: Sequence[Number], size: Sequence[Number], heading: float) -> bool:
        """Tell whether a box lies inside the room and overlaps nothing."""
        bounds = np.asarray([size], dtype=np.float64)
        middle = np.asarray([center], dtype=np.float64)
        low, high = center[2] - size[2] / 2, center[2] + size[2] / 2
        corners = footprints(middle, bounds, np.array([heading]))[0]
        inside = np.abs(corners) <= [self.width / 2, self.depth / 2]
        if not inside.all() or low < -1e-6 or high > self.height:
            return False
        around = [other for other, bottom, top in self._taken if bottom < high and low < top]
        if not around:
            return True
        wide = footprints(middle, bounds + 2 * CLEARANCE, np.array([heading]))[0]
        return not footprints_overlap(wide, np.stack(around)).any()

    def keep_free(self, center: Sequence[Number], size: Sequence[Number], heading: float) -> None:
        """Let nothing be placed in a box from now on."""
        corners = footprints(np.array([center]), np.array([size]), np.array([heading]))[0]
        self._taken.append((corners, center[2] - size[2] / 2, center[2] + size[2] / 2))

    def put(self, thing: Thing | None, x: float, y: float, *, z: float = 0.0, heading: float) -> Placed | None:
        """Place a thing with its middle over (x, y) and its lowest point at z; return None where it does not fit."""
        if thing is None:
            return None
        center = (x, y, z + float(thing.size[2]) / 2)
        if not self.is_free(center, thing.size.tolist(), heading):
            return None
        placed = Placed(thing, np.array(center), heading)
        self.placed.append(placed)
        self.keep_free(center, thing.size.tolist(), heading)
        return placed

    def against_wall(
        self, thing: Thing | None, *, walls: Sequence[int] = (0, 1, 2, 3), gap: float | None = None, z: float = 0.0
    ) -> Placed | None:
        """Place a thing with its back to a wall, somewhere along it.

        Args:
            thing: What.
            walls: Which walls to try.
            gap: Between wall and box; by default a few centimetres.
            z: Height of its lowest point.
        """
        if thing is None:
            return None
        for _ in range(TRIES):
            wall = self.draw.choose(walls)
            along, across = (self.width, self.depth) if wall % 2 == 0 else (self.depth, self.width)
            room = (along - float(thing.size[0])) / 2 - CLEARANCE
            if room < 0:
                continue
            space = self.draw.between(0.02, 0.08) if gap is None else gap
            x, y = self.draw.between(-room, room), (across - float(thing.size[1])) / 2 - space
            placed = self.put(thing, *_turned(x, y, wall), z=z, heading=wall * math.pi / 2)
            if placed:
                return placed
        return None

    def anywhere(self, thing: Thing | None, *, away: float = 0.0) -> Placed | None:
        """Place a thing on the floor at any angle, its middle at least ``away`` metres from the walls."""
        for _ in range(TRIES if thing else 0):
            x = self.draw.between(-1, 1) * max(0.0, self.width / 2 - away)
            y = self.draw.between(-1, 1) * max(0.0, self.depth / 2 - away)
            quarter = self.draw.whole(0, 3) * math.pi / 2
            placed = self.put(thing, x, y, heading=quarter + self.draw.between(-0.3, 0.3))
            if placed:
                return placed
        return None

    def before(
        self, other: Placed | None, thing: Thing | None, *, gap: tuple[float, float], facing: bool
    ) -> Placed | None:
        """Place a thing at the front of another one, turned towards it or the same way."""
        if other is None or thing is None:
            return None
        for _ in range(TRIES):
            reach = float(other.thing.size[1] + thing.size[1]) / 2 + self.draw.between(*gap)
            x, y = other.at(self.draw.between(-0.15, 0.15), -reach)
            turn = self.draw.between(-0.15, 0.15) + (math.pi if facing else 0.0)
            placed = self.put(thing, x, y, heading=other.heading + turn)
            if placed:
                return placed
        return None

    def beside(self, other: Placed | None, thing: Thing | None, side: int) -> Placed | None:
        """Place a thing to the right (1) or left (-1) of another one, backs in line."""
        if other is None or thing is None:
            return None
        x = side * (float(other.thing.size[0] + thing.size[0]) / 2 + self.draw.between(0.03, 0.15))
        y = float(other.thing.size[1] - thing.size[1]) / 2
        return self.put(thing, *other.at(x, y), heading=other.heading)

    def around(self, table: Placed | None, thing: Thing | None, num: int) -> None:
        """Place up to ``num`` copies of a thing around a table, each facing it."""
        if table is None or thing is None:
            return
        seats = self._seats(table, thing)
        for x, y, turn in self.draw.shuffled(seats)[:num]:
            gap = self.draw.between(0.08, 0.35)
            spot = table.at(x + math.sin(turn) * gap, y - math.cos(turn) * gap)
            self.put(thing, *spot, heading=table.heading + turn + math.pi + self.draw.between(-0.25, 0.25))

    def _seats(self, table: Placed, thing: Thing) -> list[tuple[float, float, float]]:
        """Return places (x, y) at a table's rim in its own frame, and the turn about z that takes its front there."""
        width, depth = (float(length) for length in table.thing.size[:2])
        wide, deep = float(thing.size[0]) + 0.1, float(thing.size[1])
        seats = []
        for turn, along, across in ((0.0, width, depth), (math.pi / 2, depth, width)):
            num = max(1, int(along / wide))
            for i in range(num):
                offset, reach = ((i + 0.5) / num - 0.5) * along, (across + deep) / 2
                for flip in (0.0, math.pi):
                    sin, cos = math.sin(turn + flip), math.cos(turn + flip)
                    seats.append((cos * offset + sin * reach, sin * offset - cos * reach, turn + flip))
        return seats

    def on(self, carrier: Placed | None, thing: Thing | None, *, turn: float | None = None) -> Placed | None:
        """Place a thing on another one's top; at any angle, or turned by ``turn`` against the other's front."""
        if carrier is None or thing is None or carrier.thing.surface is None:
            return None
        x_low, y_low, x_high, y_high = carrier.thing.surface
        for _ in range(TRIES):
            own = self.draw.between(0, 2 * math.pi) if turn is None else turn
            reach = footprints(np.zeros((1, 3)), thing.size[None], np.array([own]))[0].max(axis=0)
            x_room, y_room = (x_high - x_low) / 2 - float(reach[0]), (y_high - y_low) / 2 - float(reach[1])
            if min(x_room, y_room) < 0:
                return None
            x = (x_low + x_high) / 2 + self.draw.between(-1, 1) * x_room
            y = (y_low + y_high) / 2 + self.draw.between(-1, 1) * y_room
            z = float(carrier.center[2] + carrier.thing.size[2] / 2) + 0.002
            placed = self.put(thing, *carrier.at(x, y), z=z, heading=carrier.heading + own)
            if placed:
                return placed
        return None

    def thing(self, noun: str, *names: str, largest: Sequence[float] = ()) -> Thing | None:
        """Draw a thing for this room; see ``build``."""
        return build(noun, self.draw, names=names, largest=largest)


def _turned(x: float, y: float, quarters: int) -> tuple[float, float]:
    """Return (x, y) turned by quarters about the origin."""
    for _ in range(quarters):
        x, y = -y, x
    return x, y
