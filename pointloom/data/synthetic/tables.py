"""Tables and desks."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Draw, Finish
from pointloom.data.synthetic.primitives import Point, Solid, box, cylinder

_KINDS = {
    "dining table": ((1.0, 2.2), (0.7, 1.1), (0.68, 0.8)),
    "coffee table": ((0.6, 1.3), (0.4, 0.9), (0.3, 0.5)),
    "side table": ((0.4, 0.7), (0.35, 0.6), (0.4, 0.62)),
    "console table": ((0.8, 1.5), (0.25, 0.45), (0.7, 0.9)),
    "bistro table": ((0.65, 0.9), (0.65, 0.9), (0.7, 1.05)),
}


def table(draw: Draw) -> Blueprint:
    """Build a table: dining, coffee, side, console or bistro; round, oval or rectangular; six bases."""
    body = Assembly("top", "base", "apron", "shelf", "drawer")
    frame = draw.finish("wood", "wood", "metal", "plastic")
    top = draw.choose((frame, draw.finish("wood", "glass", "plastic")))
    kind = draw.choose(list(_KINDS), 3, 3, 1.5, 2, 1.5)
    widths, depths, heights = _KINDS[kind]
    width, depth, height = draw.between(*widths), draw.between(*depths), draw.between(*heights)
    shape = draw.choose(("rectangular", "round", "oval"), 6, 3, 1)
    if kind == "bistro table":
        shape = draw.choose(("round", "square"), 3, 1)
    if shape in ("round", "square"):
        depth = width
    thin, thick = draw.between(0.02, 0.06), draw.between(0.02, 0.05)
    if shape in ("round", "oval"):
        disc = cylinder(0.5, thin, sides=24).scaled(x=width, y=depth)
        body.add("top", top, disc.moved(z=height - thin))
    else:
        body.add("top", top, box(width, depth, thin, center=(0, 0, height - thin / 2)))
    options = ("four legs", "a central pedestal", "trestle legs", "solid sides", "a sled base", "three legs")
    if shape in ("round", "oval", "square"):
        base = draw.choose(options, 3, 4, 0, 0, 0.5, 1.5)
    else:
        base = draw.choose(options, 6, 0.5, 1.5, 1.5, 1, 0)
    inside = 0.72 if shape in ("round", "oval") else 1.0
    span = width * inside * draw.between(0.85, 1.0), depth * inside * draw.between(0.85, 1.0)
    body.add("base", frame, *_table_base(draw, base, span, height - thin, thick))
    features = [base]
    if base == "four legs" and draw.chance(0.5):
        rim = draw.between(0.05, 0.12)
        body.add("apron", frame, box(0.95 * span[0], 0.95 * span[1], rim, center=(0, 0, height - thin - rim / 2)))
        if draw.chance(0.4):
            body.add("drawer", frame, *_drawers(draw, 0.5 * span[0], rim, 1, (0, -0.48 * span[1], height - thin - rim)))
            features.append("a drawer")
    if base in ("four legs", "solid sides") and draw.chance(0.3):
        low = draw.between(0.15, 0.5) * height
        body.add("shelf", frame, box(0.95 * span[0], 0.95 * span[1], 0.02, center=(0, 0, low)))
        features.append("a lower shelf")
    looks = (shape, "low" if height < 0.52 else "tall" if height > 0.85 else "thin-topped" if thin < 0.03 else "plain")
    return Blueprint(kind, "piece of furniture with a flat top", body, frame, looks, tuple(features))


def _table_base(draw: Draw, base: str, span: tuple[float, float], height: float, thick: float) -> list[Solid]:
    width, depth = span
    if base == "a central pedestal":
        return supports.pedestal(draw, 0.36 * min(span), height, thickness=1.3 * thick)
    if base == "trestle legs":
        return supports.trestles(width, depth, height, thickness=thick)
    if base == "solid sides":
        return supports.slab_ends(width, depth, height, thickness=thick)
    if base == "a sled base":
        return supports.sled(width, depth, height, thickness=0.7 * thick)
    if base == "three legs":
        splay = draw.between(0, 0.12) * height
        return supports.round_legs(0.4 * min(span), height, num=3, thickness=0.8 * thick, splay=splay)
    return supports.corner_legs(draw, width, depth, height, thickness=thick, splay=draw.choose((0.0, 0.0, 0.06)))


def _drawers(draw: Draw, width: float, height: float, num: int, place: Point) -> list[Solid]:
    """Return drawer fronts with knobs or bars, stacked upwards from ``place``, facing -y."""
    x, y, z = place
    each = height / num
    knob = draw.chance(0.5)
    solids = []
    for i in range(num):
        middle = z + (i + 0.5) * each
        solids.append(box(0.92 * width, 0.02, 0.86 * each, center=(x, y - 0.01, middle)))
        if knob:
            solids.append(box(0.03, 0.03, 0.03, center=(x, y - 0.035, middle)))
        else:
            solids.append(box(0.4 * width, 0.02, 0.015, center=(x, y - 0.035, middle)))
    return solids


def desk(draw: Draw) -> Blueprint:
    """Build a desk: plain, with one or two drawer units, L-shaped, with a hutch, or a standing one."""
    body = Assembly("top", "leg", "drawer unit", "back panel", "hutch")
    frame = draw.finish("wood", "wood", "metal", "plastic")
    other = draw.choose((frame, draw.finish("wood", "metal")))
    width, depth, height = draw.between(0.9, 1.7), draw.between(0.45, 0.8), draw.between(0.68, 0.8)
    thin, thick = draw.between(0.02, 0.045), draw.between(0.02, 0.04)
    kind = draw.choose(("writing desk", "desk", "pedestal desk", "corner desk", "standing desk"), 1.5, 4, 2.5, 1.5, 0.7)
    if kind == "standing desk":
        height = draw.between(0.85, 1.15)
    body.add("top", frame, box(width, depth, thin, center=(0, 0, height - thin / 2)))
    under = height - thin
    side = draw.choose((-1, 1))
    features = _desk_base(draw, body, other, (width, depth, under, thick), kind=kind, side=side)
    if draw.chance(0.4):
        drop = draw.between(0.25, 0.9) * under
        body.add("back panel", frame, box(0.94 * width, 0.02, drop, center=(0, 0.42 * depth, under - drop / 2)))
        features.append("a back panel")
    if draw.chance(0.45):
        _hutch(draw, body, frame, (width, depth, height))
        features.append("a hutch")
    looks = ("wide" if width > 1.3 else "compact", "tall" if height > 0.85 else "rectangular")
    return Blueprint(kind, "workplace for writing", body, frame, looks, tuple(features))


def _desk_base(
    draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float, float], *, kind: str, side: int
) -> list[str]:
    width, depth, under, thick = size
    if kind in ("writing desk", "standing desk"):
        legs = draw.choose(("four legs", "trestle legs", "a sled base"), 3, 1, 1)
        body.add("leg", finish, *_table_base(draw, legs, (0.95 * width, 0.95 * depth), under, thick))
        if draw.chance(0.6):
            rim = draw.between(0.06, 0.12)
            body.add("drawer unit", finish, box(0.8 * width, 0.85 * depth, rim, center=(0, 0, under - rim / 2)))
            for x in (-0.2 * width, 0.2 * width):
                body.add("drawer unit", finish, *_drawers(draw, 0.36 * width, rim, 1, (x, -0.425 * depth, under - rim)))
            return [legs, "two drawers"]
        return [legs]
    unit = draw.between(0.26, 0.36) * min(width, 1.3)
    sides = (-1, 1) if kind == "pedestal desk" else (side,)
    to_floor = draw.chance(0.7)
    tall = under if to_floor else draw.between(0.3, 0.6) * under
    num = draw.whole(2, 4)
    for s in sides:
        x = s * (width - unit) / 2 * 0.97
        body.add("drawer unit", finish, box(unit, 0.88 * depth, tall, center=(x, 0, under - tall / 2)))
        fronts = _drawers(draw, unit, 0.95 * tall, num, (x, -0.44 * depth, under - tall))
        body.add("drawer unit", finish, *fronts)
    features = [f"{('one drawer', 'two drawers', 'three drawers', 'four drawers')[num - 1]}"]
    if not to_floor:
        body.add("leg", finish, *supports.corner_legs(draw, 0.97 * width, 0.95 * depth, under, thickness=thick))
    elif len(sides) == 1:
        panel = supports.slab_ends(width, depth, under, thickness=thick)
        body.add("leg", finish, panel[0 if side > 0 else 1])
    if kind == "corner desk":
        reach = draw.between(0.4, 0.9)
        x, y = -side * (width / 2 - 0.25), -(depth + reach) / 2
        body.add("top", finish, box(0.5, reach, 0.03, center=(x, y, under + 0.01)))
        body.add("leg", finish, box(0.5, 0.03, under, center=(x, y - reach / 2 + 0.02, under / 2)))
        features.append("an L-shaped top")
    return features


def _hutch(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> None:
    """Add a set of compartments that stands at the back of the top."""
    width, depth, height = size
    tall, deep = draw.between(0.15, 0.6), draw.between(0.16, 0.28)
    y = depth / 2 - deep / 2
    body.add("hutch", finish, box(width, deep, 0.02, center=(0, y, height + tall)))
    for x in np.linspace(-0.49, 0.49, draw.whole(2, 4)) * width:
        body.add("hutch", finish, box(0.02, deep, tall, center=(x, y, height + tall / 2)))
    if draw.chance(0.5):
        body.add("hutch", finish, box(width, 0.015, tall, center=(0, depth / 2, height + tall / 2)))
