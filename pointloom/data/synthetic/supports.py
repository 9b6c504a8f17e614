"""Things that furniture stands on, shared by categories so that legs alone do not give a class away."""

from __future__ import annotations

import math

from pointloom.data.synthetic.draw import Draw
from pointloom.data.synthetic.primitives import Solid, arc, box, cylinder, ring, rod, tube


def corner_legs(
    draw: Draw, width: float, depth: float, height: float, *, thickness: float, splay: float = 0.0
) -> list[Solid]:
    """Return four legs under the corners of a width x depth plate whose underside is at ``height``."""
    x, y = width / 2 - thickness, depth / 2 - thickness
    taper = draw.between(0.5, 1.0)
    sides = draw.choose((4, 8))
    return [
        rod(
            (sx * (x + splay), sy * (y + splay), 0),
            (sx * x, sy * y, height),
            thickness * taper,
            thickness,
            sides=sides,
        )
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def round_legs(radius: float, height: float, *, num: int, thickness: float, splay: float) -> list[Solid]:
    """Return legs spread evenly around the z axis, leaning outwards by ``splay`` metres."""
    angles = [2 * math.pi * (i + 0.25) / num for i in range(num)]
    return [
        rod(
            ((radius + splay) * math.cos(a), (radius + splay) * math.sin(a), 0),
            (radius * math.cos(a), radius * math.sin(a), height),
            0.7 * thickness,
            thickness,
        )
        for a in angles
    ]


def stretchers(width: float, depth: float, at: float, *, thickness: float) -> list[Solid]:
    """Return four bars at height ``at`` that tie corner legs together."""
    x, y = width / 2 - thickness, depth / 2 - thickness
    return [rod((-x, s * y, at), (x, s * y, at), thickness / 2, sides=4) for s in (-1, 1)] + [
        rod((s * x, -y, at), (s * x, y, at), thickness / 2, sides=4) for s in (-1, 1)
    ]


def pedestal(draw: Draw, radius: float, height: float, *, thickness: float) -> list[Solid]:
    """Return a central column on a round foot or on four toes."""
    column = cylinder(thickness, height, top_radius=thickness * draw.between(0.7, 1.3))
    if draw.chance(0.5):
        return [column, cylinder(radius, 0.05 * radius + 0.015, top_radius=radius * 0.85)]
    toe = tube(arc((0, 0, 0.25 * height), (0.5 * radius, 0, 0.2 * height), (radius, 0, 0.02)), 0.6 * thickness)
    return [column, *(toe.turned("z", 45 + 90 * i) for i in range(4))]


def star_base(radius: float, height: float, *, thickness: float) -> list[Solid]:
    """Return an office chair's base: a column, five spokes and five castors."""
    solids = [cylinder(thickness, 0.9 * height).moved(z=0.1 * height)]
    spoke = rod((0, 0, 0.18 * height), (radius, 0, 0.12 * height), thickness, 0.6 * thickness, sides=6)
    castor = cylinder(0.06 * height + 0.01, 0.05, sides=10).turned("x", 90).moved(radius, 0.025, 0.06 * height + 0.01)
    for i in range(5):
        solids += [spoke.turned("z", 72 * i + 18), castor.turned("z", 72 * i + 18)]
    return solids


def sled(width: float, depth: float, height: float, *, thickness: float) -> list[Solid]:
    """Return two bent-tube runners on either side."""
    solids = []
    for sign in (-1, 1):
        x, y = sign * (width / 2 - thickness), depth / 2 - thickness
        path = [(x, y, height), (x, y, 2 * thickness), (x, y - thickness, thickness)]
        path += [(x, -y + thickness, thickness), (x, -y, 2 * thickness), (x, -y, height)]
        solids.append(tube(path, thickness))
    return solids


def rockers(width: float, depth: float, height: float, *, thickness: float) -> list[Solid]:
    """Return four short legs on two curved runners."""
    solids = []
    for sign in (-1, 1):
        x, y = sign * (width / 2 - thickness), depth / 2 - thickness
        rise = 0.35 * height
        runner = arc((x, -1.5 * y, rise), (x, 0, -0.8 * rise), (x, 1.5 * y, rise))
        solids.append(tube(runner, thickness, sides=6))
        solids += [rod((x, s * y, 0.12 * height), (x, s * y, height), thickness) for s in (-1, 1)]
    return solids


def slab_ends(width: float, depth: float, height: float, *, thickness: float) -> list[Solid]:
    """Return two upright panels at the left and right end."""
    x = width / 2 - thickness
    return [box(thickness, 0.9 * depth, height, center=(s * x, 0, height / 2)) for s in (-1, 1)]


def trestles(width: float, depth: float, height: float, *, thickness: float) -> list[Solid]:
    """Return two A- or X-shaped trestles joined by a beam."""
    solids = [rod((-0.36 * width, 0, 0.45 * height), (0.36 * width, 0, 0.45 * height), thickness / 2, sides=4)]
    for sign in (-1, 1):
        x, y = sign * 0.36 * width, 0.42 * depth
        solids += [rod((x, s * y, 0), (x, -s * 0.5 * y, height), thickness, sides=4) for s in (-1, 1)]
    return solids


def foot_ring(radius: float, at: float, *, thickness: float) -> Solid:
    """Return a ring to rest the feet on."""
    return ring(radius, thickness).moved(z=at)
