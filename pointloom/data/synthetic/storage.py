"""Cabinets and bookshelves: boxes with doors, drawers and shelves in any mixture."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import PAINTS, Draw, Finish
from pointloom.data.synthetic.primitives import box, extrude, rod

_CABINETS = {
    "sideboard": ((1.0, 1.8), (0.35, 0.5), (0.5, 0.85)),
    "wardrobe": ((0.8, 1.6), (0.45, 0.6), (1.6, 2.2)),
    "cabinet": ((0.5, 1.0), (0.3, 0.5), (0.7, 1.5)),
    "nightstand": ((0.35, 0.55), (0.3, 0.45), (0.4, 0.65)),
    "chest of drawers": ((0.6, 1.2), (0.4, 0.55), (0.7, 1.2)),
    "display cabinet": ((0.6, 1.2), (0.3, 0.45), (1.3, 1.9)),
}


def cabinet(draw: Draw) -> Blueprint:
    """Build a cabinet: sideboard, wardrobe, nightstand, chest of drawers or display cabinet."""
    body = Assembly("body", "door", "drawer", "shelf", "handle", "leg")
    finish = draw.finish("wood", "wood", "metal", "painted metal")
    kind = draw.choose(list(_CABINETS))
    width, depth, height = (draw.between(*span) for span in _CABINETS[kind])
    leg = draw.choose((0.0, draw.between(0.05, 0.25)))
    features = []
    if leg > 0:
        legs = supports.corner_legs(draw, width, depth, leg, thickness=0.025, splay=draw.choose((0.0, 0.03)))
        body.add("leg", finish, *legs)
        features.append("four legs")
    if draw.chance(0.35):
        body.add("body", finish, box(1.06 * width, 1.06 * depth, 0.03, center=(0, 0, leg + height)))
    columns = 1 if width < 0.6 else draw.whole(1, 3)
    body.add("body", finish, box(0.97 * width, 0.02, height, center=(0, depth / 2 - 0.01, leg + height / 2)))
    for z in (0.01, height - 0.01):
        body.add("body", finish, box(width, depth, 0.02, center=(0, 0, leg + z)))
    for i in range(columns + 1):
        body.add("body", finish, box(0.02, depth, height, center=((i / columns - 0.5) * width, 0, leg + height / 2)))
    fills = {"chest of drawers": "drawers", "wardrobe": "doors", "display cabinet": "open shelves"}
    for i in range(columns):
        cell = ((i + 0.5) / columns - 0.5) * width, width / columns, depth, leg, height
        fill = fills.get(kind) if draw.chance(0.75) else None
        fill = fill or draw.choose(("drawers", "doors", "open shelves"), 5, 5, 0.7)
        features.append(_fill_cell(draw, body, finish, cell, fill))
    looks = ("tall" if height > 1.25 else "low" if height < 0.8 else "medium-high", "wide" if width > 1.0 else "narrow")
    return Blueprint(kind, "piece of storage furniture", body, finish, looks, tuple(dict.fromkeys(features)))


def _fill_cell(
    draw: Draw, body: Assembly, finish: Finish, cell: tuple[float, float, float, float, float], fill: str
) -> str:
    """Close or furnish one column of a cabinet and return the words for it."""
    x, width, depth, z, height = cell
    front, metal = -depth / 2, draw.shade((170, 170, 172))
    color = draw.shade(finish.rgb, spread=0.1)
    if fill == "drawers":
        num = draw.whole(2, 5) if height > 0.5 else draw.whole(1, 3)
        each = height / num
        for i in range(num):
            middle = z + (i + 0.5) * each
            body.add("drawer", color, box(0.94 * width, 0.02, 0.9 * each, center=(x, front - 0.01, middle)))
            body.add("handle", metal, box(0.3 * width, 0.02, 0.015, center=(x, front - 0.03, middle)))
        return "drawers"
    if fill == "doors":
        open_angle = draw.choose((0.0, draw.between(20, 100)), 4, 1)
        panel = box(0.94 * width, 0.02, 0.96 * height, center=(0.47 * width, 0, 0)).turned("z", -open_angle)
        body.add("door", color, panel.moved(x - 0.47 * width, front - 0.01, z + height / 2))
        if open_angle == 0:
            body.add(
                "handle", metal, box(0.015, 0.03, 0.12, center=(x + 0.36 * width, front - 0.03, z + 0.55 * height))
            )
        return "doors" if open_angle == 0 else "an open door"
    for i in range(1, draw.whole(2, 4) + 1):
        body.add("shelf", color, box(0.96 * width, 0.9 * depth, 0.018, center=(x, 0, z + height * i / 5)))
    return "open shelves"


def bookshelf(draw: Draw) -> Blueprint:
    """Build a bookshelf: upright, low, ladder, cube grid or étagère, more or less full of books."""
    body = Assembly("side", "shelf", "back", "books", "door")
    finish = draw.finish("wood", "wood", "metal", "plastic")
    kind = draw.choose(("bookcase", "low bookshelf", "ladder shelf", "cube shelf", "open shelf"), 4, 2, 1, 2, 1.5)
    low = kind == "low bookshelf"
    width, depth = draw.between(0.5, 1.4), draw.between(0.22, 0.42)
    height = draw.between(0.5, 0.95) if low else draw.between(1.0, 2.1)
    num, thin = (draw.whole(2, 3) if low else draw.whole(3, 6)), draw.between(0.015, 0.035)
    levels = (np.arange(num + 1) / num) * (height - thin) + thin / 2
    features = [f"{num} compartments" if kind == "cube shelf" else f"{num} levels"]
    if kind in ("open shelf", "ladder shelf"):
        lean = 0.5 * depth if kind == "ladder shelf" else 0.0
        for sx in (-1, 1):
            for sy in (-1, 1):
                foot, x = sy * depth / 2 - (lean if sy < 0 else 0), sx * width / 2
                body.add("side", finish, rod((x, foot, 0), (x, sy * depth / 2, height), 0.016, sides=4))
        features.append("four posts")
    else:
        for x in (-width / 2, width / 2):
            body.add("side", finish, box(thin, depth, height, center=(x, 0, height / 2)))
    if kind == "cube shelf":
        for x in (np.arange(1, max(2, round(width / 0.35))) / max(2, round(width / 0.35)) - 0.5) * width:
            body.add("side", finish, box(thin, depth, height, center=(x, 0, height / 2)))
    if kind not in ("open shelf", "ladder shelf") and draw.chance(0.6):
        body.add("back", finish, box(width, 0.012, height, center=(0, depth / 2, height / 2)))
        features.append("a closed back")
    skip = draw.between(0.0, 0.25)
    for i, z in enumerate(levels):
        if 0 < i < num and draw.chance(skip):
            continue
        body.add("shelf", finish, box(width, depth, thin, center=(0, 0, z)))
    fill = draw.choose((0.0, draw.between(0.3, 0.9)), 1, 2)
    if fill > 0 and _books(draw, body, levels, (width, depth, fill)):
        features.append("books")
    if draw.chance(0.2) and kind not in ("open shelf", "ladder shelf"):
        tall = levels[min(draw.whole(1, 2), num)]
        body.add("door", finish, box(0.97 * width, 0.015, tall, center=(0, -depth / 2, tall / 2)))
        features.append("closed lower doors")
    looks = ("tall" if height > 1.4 else "low" if height < 1.0 else "medium-high", "wide" if width > 0.95 else "slim")
    return Blueprint(kind, "piece of storage furniture", body, finish, looks, tuple(features))


def _books(
    draw: Draw, body: Assembly, levels: np.ndarray[tuple[int], np.dtype[np.float64]], size: tuple[float, float, float]
) -> bool:
    """Stand rows of books on the levels; the skyline of a row is one outline, coloured as one block of a few books."""
    width, depth, fill = size
    colors = list(PAINTS.values())
    gap = levels[1] - levels[0]
    added = False
    for z in levels[:-1]:
        if not draw.chance(fill):
            continue
        added = True
        x = -0.47 * width
        end = draw.between(0.2, 0.47) * width
        while x < end:
            block, tall = draw.between(0.08, 0.16), draw.between(0.5, 0.88) * gap
            block = min(block, 0.48 * width - x)
            step = tall * draw.between(0.8, 1.0)
            skyline = [(0, 0), (block, 0), (block, step), (0.5 * block, step), (0.5 * block, tall), (0, tall)]
            y = 0.1 * depth
            body.add("books", draw.shade(draw.choose(colors)), extrude(skyline, 0.6 * depth).moved(x, y, z))
            x += block + 0.005
    return added
