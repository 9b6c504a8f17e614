"""Lamps, monitors and potted plants."""

from __future__ import annotations

import math

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Color, Draw, Finish
from pointloom.data.synthetic.primitives import (
    Point,
    Solid,
    arc,
    box,
    cylinder,
    ellipsoid,
    extrude,
    lathe,
    rod,
    sheet,
    shell,
    tube,
)

_GREENS: tuple[Color, ...] = ((58, 120, 52), (84, 140, 60), (40, 92, 56), (120, 150, 70))


def lamp(draw: Draw) -> Blueprint:
    """Build a lamp: table, floor, reading, arc or hanging lamp with one of five shades."""
    body = Assembly("shade", "stand", "base", "bulb")
    finish = draw.finish("metal", "metal", "wood", "ceramic")
    soft = draw.finish("fabric", "fabric", "glass", "metal")
    kind = draw.choose(("table lamp", "floor lamp", "reading lamp", "arc lamp", "hanging lamp"), 4, 3, 2, 1, 1.5)
    size = draw.between(0.1, 0.22)
    tall = draw.between(1.2, 1.7) if kind in ("floor lamp", "arc lamp") else draw.between(0.25, 0.55)
    size = min(size, 0.32 * tall) if kind == "reading lamp" else size
    style = draw.choose(("conical shade", "drum shade", "dome shade", "globe", "funnel shade"))
    shade = _shade(draw, style, size)
    glow = draw.shade((250, 236, 190), spread=0.04)
    bulb = ellipsoid(0.22 * size, 0.22 * size, 0.3 * size)
    if kind in ("reading lamp", "arc lamp"):
        tip, tilt = _bent_stand(draw, body, finish, kind, tall)
        small = 0.7 if kind == "reading lamp" else 1.0
        for part, color, solid in (("shade", soft, shade), ("bulb", glow, bulb.moved(z=0.3 * size))):
            body.add(part, color, solid.scaled(small, small, small).turned("y", tilt).moved(*tip))
    elif kind == "hanging lamp":
        body.add("stand", finish, rod((0, 0, 0.7 * size), (0, 0, tall + size), 0.006))
        body.add("base", finish, cylinder(0.05, 0.03).moved(z=tall + size))
        body.add("shade", soft, shade)
        body.add("bulb", glow, bulb.moved(z=0.3 * size))
    else:
        _straight_stand(draw, body, finish, kind, tall)
        body.add("shade", soft, shade.moved(z=tall))
        body.add("bulb", glow, bulb.moved(z=tall + 0.3 * size))
    looks = ("tall" if tall > 1 else "small", "slim" if size < 0.15 else "wide")
    features = (f"a {style.replace('shade', 'screen')}", f"a {soft.color} screen")
    return Blueprint(kind, "light for a room", body, finish, looks, features)


def _shade(draw: Draw, style: str, size: float) -> Solid:
    """Return a shade whose opening is near z = 0."""
    tall = size * draw.between(0.9, 1.6)
    if style == "globe":
        return ellipsoid(size, size, size * draw.between(0.7, 1.2), center=(0, 0, 0.5 * size))
    if style == "dome shade":
        angle = np.linspace(0, 0.45 * math.pi, 7)
        outline = [(size * math.cos(a), 0.8 * tall * math.sin(a)) for a in angle]
        return shell(outline, wall=0.04 * size, open_bottom=True)
    top = {"conical shade": draw.between(0.2, 0.6), "drum shade": draw.between(0.85, 1.0), "funnel shade": 1.7}[style]
    sides = draw.choose((20, 20, 4, 6))
    outline = [(size, 0.0), (size * (1 + top) / 2, tall / 2), (size * top, tall)]
    return shell(outline, wall=0.04 * size, sides=sides, open_bottom=True)


def _bent_stand(draw: Draw, body: Assembly, finish: Finish, kind: str, tall: float) -> tuple[Point, float]:
    """Add an arm of two bars or one arc; return where the shade goes and how far it tilts towards +x, in degrees."""
    foot = draw.between(0.07, 0.11) if kind == "reading lamp" else draw.between(0.14, 0.2)
    body.add("base", finish, cylinder(foot, 0.15 * foot + 0.01, top_radius=0.9 * foot))
    reach = tall * draw.between(0.4, 0.8)
    if kind == "arc lamp":
        tip = (reach, 0.0, tall * draw.between(0.65, 0.85))
        body.add("stand", finish, tube(arc((0, 0, 0), (0.1 * reach, 0, 1.5 * tall), tip, num=10), 0.014))
        return tip, 0.0
    elbow = (-draw.between(0.1, 0.45) * tall, 0.0, tall * draw.between(0.5, 0.7))
    tip = (elbow[0] + reach, 0.0, tall)
    body.add("stand", finish, rod((0, 0, 0.02), elbow, 0.011), rod(elbow, tip, 0.011))
    return tip, -draw.between(0, 50)


def _straight_stand(draw: Draw, body: Assembly, finish: Finish, kind: str, tall: float) -> None:
    if kind == "floor lamp":
        if draw.chance(0.35):
            num = 3
            body.add("base", finish, *supports.round_legs(0.02, tall, num=num, thickness=0.016, splay=0.18 * tall))
            return
        body.add("stand", finish, cylinder(0.014, tall))
        body.add("base", finish, cylinder(draw.between(0.11, 0.17), 0.03))
        return
    r = draw.between(0.04, 0.11)
    if draw.chance(0.4):
        body.add("stand", finish, cylinder(0.012, tall))
        body.add("base", finish, cylinder(r, 0.025))
        return
    bulge = draw.between(0.5, 1.2)
    outline = [(r, 0.0), (r, 0.08 * tall), (r * bulge, 0.4 * tall), (0.3 * r, 0.75 * tall), (0.015, tall * 1.1)]
    body.add("stand", finish, lathe(outline, sides=draw.choose((16, 16, 4))))


def monitor(draw: Draw) -> Blueprint:
    """Build a monitor: flat, curved, old tube screen, television, all-in-one or two screens on one stand."""
    body = Assembly("screen", "bezel", "stand", "base", "housing")
    finish = draw.finish("plastic", "metal")
    kind = draw.choose(
        ("monitor", "curved monitor", "CRT monitor", "television", "dual monitor", "laptop"), 4, 2, 2, 2, 1, 2
    )
    dark: Color = draw.shade((24, 28, 38), spread=0.3)
    height = draw.between(0.28, 0.5)
    width = height * draw.choose((draw.between(1.2, 1.4), draw.between(1.6, 1.9), 2.3), 2, 5, 1)
    lift = draw.between(0.06, 0.25)
    if kind == "CRT monitor":
        return _crt(draw, body, finish, dark, height)
    if kind == "laptop":
        return _laptop(draw, body, finish, dark, height)
    bend = draw.between(0.08, 0.2) if kind == "curved monitor" else 0.0
    thin = draw.between(0.012, 0.05)
    middles = (-0.51 * width, 0.51 * width) if kind == "dual monitor" else (0.0,)
    for x in middles:
        across, up = np.meshgrid(np.linspace(-0.5, 0.5, 7), [0.0, 1.0])
        grid = np.stack([x + across * width, -bend * width * 4 * across**2, lift + up * height], axis=-1)
        body.add("bezel", finish, sheet(grid, thin))
        inner = grid * (1, 1, 0.9) + (0, -0.5 * thin - 0.004, 0.05 * height + 0.1 * lift)
        body.add("screen", dark, sheet(inner, 0.004))
    style = draw.choose(
        ("a neck", "two feet", "a V-shaped stand", "no stand"), 5, 3 if kind == "television" else 1, 2, 1
    )
    if style == "a neck":
        body.add(
            "stand", finish, box(0.12 * width, 0.03, lift + 0.3 * height, center=(0, 0.03, (lift + 0.3 * height) / 2))
        )
        foot = draw.between(0.3, 0.6) * width
        round_foot = cylinder(0.5, 0.015, sides=20).scaled(x=foot, y=0.6 * foot)
        body.add(
            "base", finish, round_foot if draw.chance(0.5) else box(foot, 0.5 * foot, 0.015, center=(0, 0.02, 0.01))
        )
    elif style == "two feet":
        for s in (-1, 1):
            for y in (-0.12, 0.12):
                body.add("base", finish, rod((s * 0.35 * width, 0, lift), (s * 0.35 * width, y, 0), 0.012))
    elif style == "a V-shaped stand":
        for s in (-1, 1):
            body.add("base", finish, rod((0, 0.03, lift), (s * 0.3 * width, -0.1, 0.01), 0.012))
        body.add("stand", finish, rod((0, 0.03, lift + 0.2 * height), (0, 0.2, 0.01), 0.015))
    looks = ("wide" if width > 1.7 * height else "compact", "thin" if thin < 0.03 else "thick")
    return Blueprint(kind, "electronic display", body, finish, looks, (style,))


def _crt(draw: Draw, body: Assembly, finish: Finish, dark: Color, height: float) -> Blueprint:
    width, deep = height * draw.between(1.1, 1.3), height * draw.between(0.6, 1.2)
    lift, taper = draw.between(0.02, 0.1), draw.between(0.45, 0.8)
    hull = box(width, height, deep, taper=taper).turned("x", -90).moved(0, deep / 2, lift + height / 2)
    body.add("housing", finish, hull)
    body.add("bezel", finish, box(1.04 * width, 0.05, 1.04 * height, center=(0, 0, lift + height / 2)))
    tube_face = ellipsoid(0.44 * width, 0.05, 0.42 * height, center=(0, -0.01, lift + height / 2), power=5)
    body.add("screen", dark, tube_face)
    body.add("base", finish, cylinder(0.5, lift + 0.02).scaled(x=0.6 * width, y=0.6 * width).moved(y=0.3 * deep))
    return Blueprint("CRT monitor", "electronic display", body, finish, ("bulky", "square"), ("a deep housing",))


def _laptop(draw: Draw, body: Assembly, finish: Finish, dark: Color, height: float) -> Blueprint:
    width, angle = height * draw.between(1.3, 1.6), draw.between(-5, 40)
    body.add("base", finish, box(width, 0.75 * height, 0.02, center=(0, -0.375 * height, 0.01)))
    body.add("base", dark, box(0.85 * width, 0.35 * height, 0.006, center=(0, -0.3 * height, 0.023)))
    lid = box(width, 0.012, height, center=(0, 0, height / 2)).turned("x", -angle)
    glass = box(0.93 * width, 0.004, 0.88 * height, center=(0, -0.01, height / 2)).turned("x", -angle)
    body.add("bezel", finish, lid.moved(z=0.02))
    body.add("screen", dark, glass.moved(z=0.02))
    looks = ("thin", "portable")
    return Blueprint("laptop monitor", "electronic display", body, finish, looks, ("a keyboard", "a hinge"))


def plant(draw: Draw) -> Blueprint:
    """Build a potted plant: bush, palm, cactus, sword-shaped leaves, small tree or succulent."""
    body = Assembly("pot", "stem", "leaf", "soil")
    clay = draw.finish("ceramic", "ceramic", "plastic", "metal")
    kind = draw.choose(("bushy plant", "palm", "cactus", "snake plant", "small tree", "fern"))
    r, tall = draw.between(0.08, 0.16), draw.between(0.1, 0.26)
    base = draw.between(0.6, 1.0)
    sides = draw.choose((20, 20, 20, 4, 6))
    pot = shell([(base * r, 0.0), ((base + 1) / 2 * r, tall / 2), (r, tall)], wall=0.08 * r, sides=sides)
    body.add("pot", clay, pot.turned("z", 180 / sides))
    body.add("soil", draw.shade((70, 48, 34)), cylinder(0.66 * (1 + base) / 2 * r, 0.02, sides=12).moved(z=0.85 * tall))
    _GROW[kind](draw, body, r, 0.85 * tall)
    looks = ("tall" if kind in ("palm", "small tree") else "compact", "potted")
    finish = Finish(
        "spines" if kind == "cactus" else "leaves", "prickly" if kind == "cactus" else "leafy", "green", _GREENS[0]
    )
    shape = {4: "a square pot", 6: "a six-sided pot"}.get(sides, "a round pot")
    return Blueprint(
        kind if "plant" in kind else f"potted {kind}",
        "piece of greenery",
        body,
        finish,
        looks,
        (shape, f"a {clay.color} {clay.material} pot"),
    )


def _green(draw: Draw) -> Color:
    return draw.shade(draw.choose(_GREENS))


def _leaf(draw: Draw, start: Point, *, turn: float, length: float, width: float, droop: float) -> Solid:
    """Return a pointed leaf that grows from start towards ``turn`` degrees and bends down by ``droop``."""
    t = np.linspace(0, 1, 6)
    half = width * np.sin(np.pi * (0.12 + 0.84 * t)) / 2
    lift = draw.between(0.5, 1.1)
    up = length * (lift * t - droop * t**2)
    grid = np.stack([np.stack([length * t, s * half, up + 0.15 * half * s * s], axis=-1) for s in (-1, 0, 1)], axis=1)
    return sheet(grid, 0.05 * width).turned("z", turn).moved(*start)


def _bush(draw: Draw, body: Assembly, r: float, z: float) -> None:
    for _ in range(draw.whole(10, 20)):
        length = draw.between(1.2, 2.4) * r
        start, turn, droop = (0, 0, z + draw.between(0, 1.5) * r), draw.between(0, 360), draw.between(0.2, 1.1)
        leaf = _leaf(draw, start, turn=turn, length=length, width=0.4 * length, droop=droop)
        body.add("leaf", _green(draw), leaf)
    body.add("stem", _green(draw), rod((0, 0, z), (0, 0, z + 1.6 * r), 0.07 * r))


def _palm(draw: Draw, body: Assembly, r: float, z: float) -> None:
    top = (draw.between(-0.5, 0.5) * r, 0.0, z + draw.between(2, 5) * r)
    body.add("stem", draw.shade((120, 90, 60)), tube(arc((0, 0, z), (0, 0, (z + top[2]) / 2), top), 0.14 * r))
    num = draw.whole(6, 11)
    for i in range(num):
        length = draw.between(2.0, 3.4) * r
        body.add(
            "leaf",
            _green(draw),
            _leaf(draw, top, turn=360 * i / num, length=length, width=0.22 * length, droop=draw.between(0.8, 1.5)),
        )


def _cactus(draw: Draw, body: Assembly, r: float, z: float) -> None:
    green, tall, thick = _green(draw), draw.between(1.2, 4.5) * r, draw.between(0.25, 0.6) * r
    body.add("stem", green, ellipsoid(thick, thick, tall / 2 + thick, center=(0, 0, z + tall / 2), power=3))
    for i in range(draw.whole(0, 3)):
        low, reach = z + draw.between(0.25, 0.6) * tall, thick + draw.between(0.4, 0.9) * r
        arm = tube(
            [(0, 0, low), (0.9 * reach, 0, low), (reach, 0, low + 0.15 * r), (reach, 0, low + 0.4 * tall)], 0.5 * thick
        )
        body.add("stem", green, arm.turned("z", 180 * i + draw.between(-20, 20)))


def _swords(draw: Draw, body: Assembly, r: float, z: float) -> None:
    for _ in range(draw.whole(6, 12)):
        tall, half = draw.between(2.0, 5.0) * r, draw.between(0.15, 0.28) * r
        blade = extrude(
            [(-half, 0), (half, 0), (1.2 * half, 0.6 * tall), (0, tall), (-1.2 * half, 0.6 * tall)], 0.06 * r
        )
        spot = draw.between(-0.4, 0.4) * r, draw.between(-0.4, 0.4) * r, z
        lean = draw.between(-18, 18)
        body.add("leaf", _green(draw), blade.turned("y", lean).turned("z", draw.between(0, 360)).moved(*spot))


def _tree(draw: Draw, body: Assembly, r: float, z: float) -> None:
    tall, crown = draw.between(1.5, 4.0) * r, draw.between(1.0, 2.0) * r
    body.add("stem", draw.shade((110, 80, 52)), cylinder(0.14 * r, tall).moved(z=z))
    if draw.chance(0.35):
        cone = cylinder(crown, 2.2 * crown, top_radius=0.05 * crown, sides=12)
        body.add("leaf", _green(draw), cone.moved(z=z + 0.7 * tall))
        return
    for _ in range(draw.whole(1, 5)):
        spot = tuple(draw.between(-0.45, 0.45) * crown for _ in range(3))
        size = crown * draw.between(0.6, 1.0)
        body.add("leaf", _green(draw), ellipsoid(size, size, size, center=(spot[0], spot[1], z + tall + spot[2])))


def _fern(draw: Draw, body: Assembly, r: float, z: float) -> None:
    num = draw.whole(9, 18)
    for i in range(num):
        length = draw.between(1.5, 3.0) * r
        body.add(
            "leaf",
            _green(draw),
            _leaf(draw, (0, 0, z), turn=360 * i / num, length=length, width=0.2 * length, droop=draw.between(0.5, 1.4)),
        )


_GROW = {
    "bushy plant": _bush,
    "palm": _palm,
    "cactus": _cactus,
    "snake plant": _swords,
    "small tree": _tree,
    "fern": _fern,
}
