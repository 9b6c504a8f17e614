"""Chairs and stools: things for one person to sit on."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Draw, Finish
from pointloom.data.synthetic.primitives import Number, Solid, arc, box, cylinder, ellipsoid, rod, sheet, tube

_CHAIR_NAMES = {
    "four legs": "chair",
    "a pedestal": "swivel chair",
    "a star base on castors": "office chair",
    "a sled base": "cantilever chair",
    "rockers": "rocking chair",
    "a solid base": "armchair",
}


def chair(draw: Draw) -> Blueprint:
    """Build a chair: six bases, seven backs, with or without arms and a cushion."""
    body = Assembly("seat", "back", "base", "arm", "cushion")
    frame = draw.finish("wood", "wood", "metal", "plastic")
    soft = draw.finish("fabric", "leather")
    base = draw.choose(list(_CHAIR_NAMES), 6, 1, 2, 1.5, 1.5, 1.5)
    width, depth = draw.between(0.36, 0.6), draw.between(0.36, 0.56)
    height, rise = draw.between(0.34, 0.52), draw.between(0.3, 0.75)
    if draw.chance(0.12):
        height, rise = draw.between(0.6, 0.8), draw.between(0.18, 0.35)
    if base == "a solid base":
        width, depth, height = width * 1.35, depth * 1.3, height * 0.85
    thin = draw.between(0.025, 0.06)
    body.add("seat", frame, *_seat(draw, width, depth, height, thin))
    body.add("base", frame, *_chair_base(draw, base, width, depth, height - thin / 2))
    lean = draw.between(0.0, 0.16) * (rise / 0.5)
    back = _back(draw, body, frame, soft, (width, depth, height, rise, lean))
    features = [base, back]
    if base == "a solid base" or draw.chance(0.3):
        body.add("arm", frame, *_arms(draw, width, depth, height, solid=base == "a solid base"))
        features.append("armrests")
    if base == "a solid base" or draw.chance(0.25):
        thick = draw.between(0.03, 0.09)
        body.add("cushion", soft, ellipsoid(0.46 * width, 0.46 * depth, thick, center=(0, 0, height + thick), power=5))
        features.append("a cushion")
    name = "high chair" if height > 0.58 and base == "four legs" else _CHAIR_NAMES[base]
    looks: tuple[str, ...] = ("tall" if height + rise > 1.0 else "low" if height + rise < 0.75 else "medium-sized",)
    looks += ("wide" if width > 0.55 else "narrow" if width < 0.42 else "sturdy" if thin > 0.045 else "light",)
    main = soft if base == "a solid base" else frame
    return Blueprint(name, "seat for one person", body, main, looks, tuple(features))


def _seat(draw: Draw, width: float, depth: float, height: float, thin: float) -> list[Solid]:
    shape = draw.choose(("board", "soft", "round", "narrow at the back"))
    if shape == "soft":
        return [ellipsoid(width / 2, depth / 2, thin, center=(0, 0, height), power=7)]
    if shape == "round":
        return [cylinder(0.5, thin, sides=20).scaled(x=width, y=depth).moved(z=height - thin / 2)]
    if shape == "board":
        return [box(width, depth, thin, center=(0, 0, height))]
    return [box(width, thin, depth, taper=0.8).turned("x", -90).scaled(x=1.1).moved(z=height)]


def _chair_base(draw: Draw, base: str, width: float, depth: float, height: float) -> list[Solid]:
    thick = draw.between(0.014, 0.032)
    if base == "a pedestal":
        return supports.pedestal(draw, 0.45 * width, height, thickness=1.3 * thick)
    if base == "a star base on castors":
        return supports.star_base(draw.between(0.5, 0.62) * width, height, thickness=thick)
    if base == "a sled base":
        return supports.sled(width, depth, height, thickness=0.8 * thick)
    if base == "rockers":
        return supports.rockers(width, depth, height, thickness=thick)
    if base == "a solid base":
        legs = supports.corner_legs(draw, width, depth, 0.2 * height, thickness=thick)
        return [box(width, depth, 0.8 * height, center=(0, 0, 0.6 * height)), *legs]
    legs = supports.corner_legs(draw, width, depth, height, thickness=thick, splay=draw.choose((0.0, 0.0, 0.05)))
    if draw.chance(0.35):
        legs += supports.stretchers(width, depth, draw.between(0.2, 0.6) * height, thickness=thick)
    return legs


def _back(
    draw: Draw, body: Assembly, frame: Finish, soft: Finish, size: tuple[float, float, float, float, float]
) -> str:
    """Add a back and return what it looks like; it leans backwards by ``lean`` metres over its rise."""
    width, depth, height, rise, lean = size
    y, thin, w = depth / 2 - 0.02, draw.between(0.012, 0.03), 0.46 * width

    def at(x: Number, z: Number) -> tuple[float, float, float]:
        return (x * w, y + lean * z, height + rise * z)

    style = draw.choose(("slatted", "ladder", "solid", "bent", "arched", "padded", "spindle"))
    posts = [rod(at(s, 0), at(s, 1), thin) for s in (-1, 1)]
    if style in ("slatted", "spindle"):
        num = draw.whole(2, 4) if style == "slatted" else draw.whole(5, 7)
        radius = 0.75 * thin if style == "slatted" else 0.4 * thin
        bars = [rod(at(x, 0.05), at(x, 0.97), radius, sides=4) for x in np.linspace(-0.7, 0.7, num)]
        body.add("back", frame, *posts, *bars, rod(at(-1, 0.97), at(1, 0.97), 1.3 * thin, sides=4))
        return "a slatted back" if style == "slatted" else "a spindle back"
    if style == "ladder":
        bars = [rod(at(-1, z), at(1, z), 1.2 * thin, sides=4) for z in np.linspace(0.3, 0.95, draw.whole(2, 4))]
        body.add("back", frame, *posts, *bars)
        return "a ladder back"
    if style == "arched":
        hoop = np.concatenate([[at(-1, 0)], arc(at(-1, 0.5), at(-0.9, 1.1), at(0, 1), num=6)])
        hoop = np.concatenate([hoop, hoop[-2::-1] * (-1, 1, 1)])
        bars = [rod(at(x, 0), at(x, 0.9), 0.5 * thin) for x in np.linspace(-0.5, 0.5, draw.whole(1, 4))]
        body.add("back", frame, tube(hoop, thin), *bars)
        return "an arched back"
    start = draw.choose((0.0, 0.3, 0.45))
    across, up = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(start, 1, 3))
    grid = np.stack([across * w * draw.between(0.8, 1.05), y + lean * up, height + rise * up], axis=-1)
    grid[..., 1] -= (draw.between(0.15, 0.4) if style == "bent" else 0.0) * w * across**2
    if start > 0:
        body.add("back", frame, *(rod(at(s, 0), at(s, 0.6), thin) for s in (-0.5, 0.5)))
    thick = draw.between(0.06, 0.12) if style == "padded" else thin
    body.add("back", soft if style == "padded" else frame, sheet(grid, thick))
    return {"solid": "a solid back", "bent": "a curved back", "padded": "a padded back"}[style]


def _arms(draw: Draw, width: float, depth: float, height: float, *, solid: bool) -> list[Solid]:
    rise, thin = draw.between(0.16, 0.26), draw.between(0.014, 0.025)
    x, y = width / 2, 0.42 * depth
    if solid:
        thick = draw.between(0.08, 0.16)
        return [
            box(thick, depth, rise + 0.15, center=(s * (x + thick / 2), 0, height + rise / 2 - 0.08)) for s in (-1, 1)
        ]
    solids = [rod((s * x, -y, height + rise), (s * x, y, height + rise), 1.3 * thin, sides=4) for s in (-1, 1)]
    return solids + [rod((s * x, -0.8 * y, height), (s * x, -0.8 * y, height + rise), thin) for s in (-1, 1)]


def stool(draw: Draw) -> Blueprint:
    """Build a stool: round or square, low or bar height, three or four legs or a column, sometimes with a low back."""
    body = Assembly("seat", "base", "foot rest", "back")
    frame = draw.finish("wood", "wood", "metal", "plastic")
    top = draw.choose((frame, draw.finish("leather", "fabric")))
    radius, height = draw.between(0.14, 0.2), draw.choose((draw.between(0.3, 0.5), draw.between(0.6, 0.85)))
    thin, thick = draw.between(0.03, 0.1), draw.between(0.014, 0.03)
    is_round = draw.chance(0.55)
    stretch = 1.0 if is_round else draw.between(1.0, 1.7)
    if is_round:
        body.add(
            "seat", top, cylinder(radius, thin, top_radius=radius * draw.between(0.85, 1.0)).moved(z=height - thin)
        )
    elif draw.chance(0.3):
        across, along = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 3))
        curl = draw.between(0.02, 0.07) * across**2
        grid = np.stack([across * radius * stretch, along * radius, height - 0.5 * thin + curl], axis=-1)
        body.add("seat", top, sheet(grid, thin))
    else:
        body.add("seat", top, box(2 * radius * stretch, 2 * radius, thin, center=(0, 0, height - thin / 2)))
    base = draw.choose(
        ("three legs", "four legs", "a pedestal", "a star base on castors", "solid sides"), 2, 4, 2, 1, 1
    )
    body.add("base", frame, *_stool_base(draw, base, radius=radius, stretch=stretch, height=height - thin, thick=thick))
    features = [base]
    if "legs" in base and height > 0.45 and draw.chance(0.6):
        low = draw.between(0.2, 0.45)
        if is_round:
            body.add("foot rest", frame, supports.foot_ring(1.0 * radius, low * height, thickness=0.6 * thick))
        else:
            span = 2 * radius * stretch, 2 * radius
            body.add("foot rest", frame, *supports.stretchers(*span, low * height, thickness=0.8 * thick))
        features.append("a foot rest")
    if draw.chance(0.35):
        rise = draw.between(0.1, 0.3)
        x, y = 0.75 * radius * stretch, 0.8 * radius
        posts = [rod((s * x, y, height - 0.01), (s * x, y + 0.02, height + rise), 0.6 * thick) for s in (-1, 1)]
        board = box(2.2 * x, 0.02, draw.between(0.4, 0.8) * rise, center=(0, y + 0.01, height + 0.8 * rise))
        body.add("back", frame, *posts, board)
        features.append("a low back")
    name = "bar stool" if height > 0.58 else "footstool" if height < 0.36 else "stool"
    looks = ("tall" if height > 0.58 else "low", "round" if is_round else "rectangular" if stretch > 1.25 else "square")
    return Blueprint(name, "seat for one person", body, frame, looks, tuple(features))


def _stool_base(draw: Draw, base: str, *, radius: float, stretch: float, height: float, thick: float) -> list[Solid]:
    span = 2 * radius * stretch, 2 * radius
    if base == "a pedestal":
        return supports.pedestal(draw, draw.between(0.8, 1.1) * radius, height, thickness=1.4 * thick)
    if base == "a star base on castors":
        return supports.star_base(draw.between(1.1, 1.4) * radius, height, thickness=thick)
    if base == "solid sides":
        return supports.slab_ends(*span, height, thickness=1.5 * thick)
    if base == "four legs" and stretch > 1.0:
        return supports.corner_legs(draw, *span, height, thickness=thick, splay=draw.choose((0.0, 0.04)))
    num = 3 if base == "three legs" else 4
    return supports.round_legs(0.7 * radius, height, num=num, thickness=thick, splay=draw.between(0.0, 0.09))
