"""What belongs to a room rather than to its people: doors, windows, pictures, curtains, kitchen and bathroom."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic import Assembly, Blueprint, Builder, Draw
from pointloom.data.synthetic.primitives import Solid, box, cylinder, ellipsoid, rod, sheet, shell


def door(draw: Draw) -> Blueprint:
    """Build a closed door in its frame, with a handle; flat, panelled or with a pane."""
    body = Assembly("leaf", "frame", "handle", "pane")
    finish, rim = draw.finish("wood", "painted metal"), draw.finish("wood", "metal")
    width, height = draw.between(0.75, 1.1), draw.between(1.95, 2.15)
    body.add("leaf", finish, box(width, 0.05, height, center=(0, 0.02, height / 2)))
    for side in (-1, 1):
        body.add("frame", rim, box(0.08, 0.1, height + 0.08, center=(side * (width / 2 + 0.04), 0, height / 2 + 0.04)))
    body.add("frame", rim, box(width, 0.1, 0.08, center=(0, 0, height + 0.04)))
    grip = draw.choose((-1, 1)) * (width / 2 - 0.08)
    body.add("handle", draw.finish("metal"), box(0.12, 0.02, 0.025, center=(grip, -0.06, 1.0)))
    style = draw.choose(("flat", "panelled", "glazed"))
    for z in (0.28, 0.7) if style != "flat" else ():
        color = draw.shade((200, 216, 222)) if style == "glazed" else draw.shade(finish.rgb)
        body.add("pane", color, box(0.65 * width, 0.02, 0.32 * height, center=(0, -0.01, z * height)))
    return Blueprint("door", "way in", body, finish, ("wide" if width > 0.95 else "narrow", style), ())


def window(draw: Draw) -> Blueprint:
    """Build a window with a frame, bars and a sill."""
    body = Assembly("pane", "frame", "sill")
    finish = draw.finish("wood", "plastic", "metal")
    width, height = draw.between(0.6, 2.2), draw.between(0.8, 1.5)
    body.add("pane", draw.shade((170, 205, 230)), box(width, 0.02, height, center=(0, 0.03, height / 2)))
    for z in (0.03, height - 0.03):
        body.add("frame", finish, box(width, 0.07, 0.06, center=(0, 0.01, z)))
    for x in np.linspace(-0.5, 0.5, 2 + draw.whole(0, 2)) * (width - 0.06):
        body.add("frame", finish, box(0.06, 0.07, height, center=(x, 0.01, height / 2)))
    body.add("sill", draw.finish("wood", "ceramic"), box(width + 0.1, 0.16, 0.03, center=(0, -0.035, -0.015)))
    return Blueprint("window", "opening", body, finish, ("wide" if width > 1.3 else "narrow",), ())


def picture(draw: Draw) -> Blueprint:
    """Build a framed picture of a few coloured fields."""
    body = Assembly("canvas", "frame")
    finish = draw.finish("wood", "metal", "plastic")
    width, height = draw.between(0.3, 1.1), draw.between(0.3, 0.8)
    body.add("frame", finish, box(width, 0.04, height, center=(0, 0.02, height / 2)))
    num = draw.whole(1, 4)
    for i in range(num):
        x = ((i + 0.5) / num - 0.5) * (width - 0.08)
        field = box((width - 0.08) / num, 0.01, height - 0.08, center=(x, -0.005, height / 2))
        body.add("canvas", draw.finish("fabric"), field)
    shape = "wide" if width > 1.3 * height else "tall" if height > 1.3 * width else "square"
    return Blueprint("picture", "wall decoration", body, finish, ("large" if width > 0.7 else "small", shape), ())


def _drape(draw: Draw, *, width: float, height: float, deep: float) -> Solid:
    """Return a sheet that hangs in folds."""
    x = np.linspace(-0.5, 0.5, 25) * width
    folds = np.sin(x * (2 * np.pi / draw.between(0.12, 0.2)) + draw.between(0, 6)) * deep / 2
    return sheet(np.stack([np.stack([x, folds, np.full(25, z)], axis=1) for z in (height, 0.0)]), 0.008)


def curtain(draw: Draw) -> Blueprint:
    """Build one side of a curtain, open or half closed."""
    body = Assembly("cloth", "rail")
    finish = draw.finish("fabric")
    width, height = draw.between(0.25, 0.7), draw.between(1.7, 2.2)
    body.add("cloth", finish, _drape(draw, width=width, height=height, deep=0.08))
    body.add("rail", draw.finish("metal"), rod((-width / 2, 0, height), (width / 2, 0, height), 0.012))
    return Blueprint("curtain", "cloth at a window", body, finish, ("wide" if width > 0.45 else "narrow",), ())


def shower_curtain(draw: Draw) -> Blueprint:
    """Build a curtain as wide as a bathtub is long, with its rail."""
    body = Assembly("cloth", "rail")
    finish = draw.finish("plastic")
    width, height = draw.between(0.8, 1.3), draw.between(1.75, 2.0)
    body.add("cloth", finish, _drape(draw, width=width, height=height, deep=0.06))
    body.add("rail", draw.finish("metal"), rod((-width / 2 - 0.1, 0, height), (width / 2 + 0.1, 0, height), 0.015))
    return Blueprint("shower curtain", "cloth at a bathtub", body, finish, ("hanging",), ())


def counter(draw: Draw) -> Blueprint:
    """Build a kitchen or shop counter: a row of cupboards or drawers under one top."""
    body = Assembly("top", "cupboard", "handle", "base")
    finish, top = draw.finish("wood", "painted metal"), draw.finish("wood", "ceramic", "metal")
    width, depth, height = draw.between(1.2, 2.6), draw.between(0.55, 0.7), draw.between(0.85, 1.05)
    body.add("base", (60, 58, 56), box(width, depth - 0.1, 0.1, center=(0, 0.03, 0.05)))
    body.add("cupboard", finish, box(width, depth - 0.04, height - 0.14, center=(0, 0.02, 0.1 + (height - 0.14) / 2)))
    body.add("top", top, box(width + 0.04, depth, 0.04, center=(0, 0, height - 0.02)))
    num = round(width / 0.5)
    for i in range(num):
        x = ((i + 0.5) / num - 0.5) * width
        front = box(0.92 * width / num, 0.02, height - 0.2, center=(x, 0.03 - depth / 2, 0.1 + (height - 0.14) / 2))
        body.add("cupboard", draw.shade(finish.rgb, spread=0.06), front)
        body.add("handle", (150, 152, 156), box(0.14, 0.02, 0.02, center=(x, 0.01 - depth / 2, height - 0.16)))
    return Blueprint("counter", "work surface", body, finish, ("long" if width > 1.9 else "short",), ())


def refrigerator(draw: Draw) -> Blueprint:
    """Build a refrigerator with one or two doors."""
    body = Assembly("body", "door", "handle")
    finish = draw.finish("painted metal", "metal")
    width, depth = draw.between(0.55, 0.9), draw.between(0.55, 0.75)
    height = draw.between(0.85, 1.0) if draw.chance(0.2) else draw.between(1.4, 1.95)
    body.add("body", finish, box(width, depth - 0.06, height, center=(0, 0.03, height / 2)))
    split = draw.between(0.3, 0.7) if height > 1.2 and draw.chance(0.8) else 1.0
    for low, high in ((0.0, split), (split, 1.0)) if split < 1 else ((0.0, 1.0),):
        tall, middle = (high - low) * height - 0.015, (low + high) / 2 * height
        body.add("door", finish, box(width, 0.05, tall, center=(0, 0.035 - depth / 2, middle)))
        body.add("handle", (90, 92, 96), box(0.03, 0.04, 0.5 * tall, center=(0.42 * width, -depth / 2, middle)))
    looks = ("tall" if height > 1.2 else "low", "wide" if width > 0.72 else "narrow")
    return Blueprint("refrigerator", "kitchen appliance", body, finish, looks, ())


def toilet(draw: Draw) -> Blueprint:
    """Build a toilet: bowl, foot, seat with or without a raised lid, and cistern."""
    body = Assembly("bowl", "seat", "lid", "cistern")
    finish = draw.finish("ceramic")
    wide, deep, height = draw.between(0.34, 0.4), draw.between(0.44, 0.5), draw.between(0.38, 0.44)
    stretch = deep / wide
    outline = [(0.26 * wide, 0.0), (0.3 * wide, 0.5 * height), (0.5 * wide, height)]
    body.add("bowl", finish, shell(outline, wall=0.12 * wide).scaled(y=stretch))
    body.add("bowl", finish, box(0.5 * wide, 0.3, height, center=(0, 0.35 * deep, height / 2)))
    rim = shell([(0.52 * wide, 0.0), (0.52 * wide, 0.025)], wall=0.16 * wide, open_bottom=True)
    body.add("seat", draw.finish("plastic", "wood"), rim.scaled(y=stretch).moved(z=height))
    lid = cylinder(0.5 * wide, 0.02).scaled(y=stretch)
    raised = draw.chance(0.4)
    lid = lid.moved(y=-deep / 2).turned("x", -84).moved(y=deep / 2 - 0.02, z=height + 0.03) if raised else lid
    body.add("lid", finish, lid if raised else lid.moved(z=height + 0.03))
    rise = draw.between(0.3, 0.4)
    cistern = box(wide, 0.17, rise, center=(0, deep / 2 + 0.1, height + rise / 2 - 0.02))
    body.add("cistern", finish, cistern, box(0.6 * wide, 0.15, height, center=(0, deep / 2 + 0.08, height / 2)))
    return Blueprint("toilet", "sanitary ware", body, finish, ("open" if raised else "closed",), ())


def sink(draw: Draw) -> Blueprint:
    """Build a washbasin with a tap, on a column or on a cupboard."""
    body = Assembly("basin", "support", "tap")
    finish = draw.finish("ceramic", "ceramic", "metal")
    wide, deep, height = draw.between(0.45, 0.7), draw.between(0.4, 0.5), draw.between(0.8, 0.9)
    bowl = shell([(0.3, 0.0), (0.45, 0.08), (0.5, 0.16)], wall=0.06)
    body.add("basin", finish, bowl.scaled(x=wide, y=deep).moved(z=height - 0.16))
    body.add("basin", finish, box(wide, 0.1, 0.16, center=(0, deep / 2, height - 0.08)))
    on_column = draw.chance(0.5)
    if on_column:
        body.add("support", finish, cylinder(0.1, height - 0.14, top_radius=0.08).moved(y=0.08))
    else:
        board = draw.finish("wood", "painted metal")
        body.add("support", board, box(0.9 * wide, 0.8 * deep, height - 0.16, center=(0, 0.03, (height - 0.16) / 2)))
    metal = draw.finish("metal")
    body.add("tap", metal, rod((0, deep / 2, height), (0, deep / 2, height + 0.14), 0.014))
    body.add("tap", metal, rod((0, deep / 2, height + 0.14), (0, deep / 2 - 0.14, height + 0.11), 0.012))
    looks = ("wide" if wide > 0.58 else "narrow", "slim" if on_column else "solid")
    return Blueprint("sink", "washbasin", body, finish, looks, ())


def bathtub(draw: Draw) -> Blueprint:
    """Build a bathtub: built in, or free-standing and oval."""
    body = Assembly("tub", "foot", "tap")
    finish = draw.finish("ceramic", "plastic")
    length, wide, height = draw.between(1.4, 1.8), draw.between(0.65, 0.8), draw.between(0.48, 0.6)
    is_oval = draw.chance(0.4)
    sides = 20 if is_oval else 4
    half = 0.5 if is_oval else 0.5 * np.sqrt(2)
    outline = [(0.8 * half if is_oval else half, 0.0), (half, 0.5 * height), (half, height)]
    tub = shell(outline, wall=0.1 * half, sides=sides).turned("z", 180 / sides)
    body.add("tub", finish, tub.scaled(x=length, y=wide))
    if is_oval:
        places = [(x * length, y * wide) for x in (-0.3, 0.3) for y in (-0.25, 0.25)]
        feet = (ellipsoid(0.05, 0.05, 0.08, center=(x, y, -0.02)) for x, y in places)
        body.add("foot", draw.finish("metal"), *feet)
    body.add("tap", draw.finish("metal"), rod((0.4 * length, 0, height), (0.4 * length, 0, height + 0.12), 0.02))
    return Blueprint("bathtub", "tub", body, finish, ("oval" if is_oval else "rectangular",), ())


FITTINGS: dict[str, Builder] = {
    "door": door,
    "window": window,
    "picture": picture,
    "curtain": curtain,
    "counter": counter,
    "refrigerator": refrigerator,
    "shower curtain": shower_curtain,
    "toilet": toilet,
    "sink": sink,
    "bathtub": bathtub,
}
