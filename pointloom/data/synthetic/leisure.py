"""Guitars and tents."""

from __future__ import annotations

import math

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Draw, Finish
from pointloom.data.synthetic.primitives import Array, box, cylinder, extrude, lathe, rod, sheet, shell


def guitar(draw: Draw) -> Blueprint:
    """Build a guitar: acoustic, electric, flying-V, bass, ukulele or banjo-like, standing upright."""
    body = Assembly("body", "neck", "head", "strings", "detail")
    kind = draw.choose(
        ("acoustic guitar", "electric guitar", "V-shaped guitar", "bass guitar", "ukulele", "banjo"), 4, 4, 1, 2, 2, 1
    )
    finish = draw.finish("wood") if kind in ("acoustic guitar", "ukulele") else draw.finish("wood", "painted metal")
    long = 0.75 if kind == "ukulele" else 1.0
    neck_length = draw.between(0.38, 0.5) * long * (1.25 if kind == "bass guitar" else 1.0)
    tall, half = draw.between(0.42, 0.52) * long, draw.between(0.16, 0.21) * long
    thick = draw.between(0.08, 0.12) if kind in ("acoustic guitar", "ukulele", "banjo") else draw.between(0.035, 0.055)
    if kind == "banjo":
        tall = 2 * half
        body.add("body", finish, cylinder(half, thick, sides=24).turned("x", 90).moved(0, thick / 2, half))
    elif kind == "V-shaped guitar":
        outline = [(0.0, 0.35), (1.0, 0.0), (0.45, 0.75), (0.15, 1.0), (-0.15, 1.0), (-0.45, 0.75), (-1.0, 0.0)]
        body.add("body", finish, extrude([(x * half * 1.1, z * tall) for x, z in outline], thick))
    else:
        body.add("body", finish, extrude(_waisted(draw, half, tall, cutaway=kind != "ukulele"), thick))
    front = -thick / 2
    dark = draw.shade((70, 46, 30))
    neck = box(0.055 * long, 0.03, neck_length + 0.3 * tall, center=(0, front, 0.85 * tall + neck_length / 2))
    body.add("neck", dark, neck)
    top = tall + neck_length
    head = draw.between(0.13, 0.2) * long
    body.add("head", finish, box(0.08 * long, 0.02, head, center=(0, front + 0.02, top + head / 2), taper=1.2))
    num = 4 if kind in ("bass guitar", "ukulele") else 6
    for i in range(num):
        s, z = (1 if i % 2 else -1), top + head * (0.2 + 0.7 * (i // 2) / (num / 2))
        body.add("head", (180, 180, 182), rod((s * 0.03, front + 0.02, z), (s * 0.075 * long, front + 0.02, z), 0.008))
    body.add(
        "strings",
        (214, 208, 190),
        box(0.035 * long, 0.004, top - 0.25 * tall, center=(0, front - 0.024, (top + 0.25 * tall) / 2)),
    )
    body.add("detail", dark, box(0.14 * long, 0.02, 0.03, center=(0, front - 0.01, 0.25 * tall)))
    features = ["four strings" if num == 4 else "six strings"]
    if draw.chance(0.5):
        body.add("detail", (30, 26, 24), cylinder(0.3 * half, 0.006).turned("x", 90).moved(0, front, 0.55 * tall))
        features.append("a sound hole" if thick > 0.06 else "a round pickup")
    looks = ("long" if neck_length > 0.48 else "compact", "thin" if thick < 0.06 else "hollow")
    return Blueprint(kind, "musical instrument", body, finish, looks, tuple(features))


def _waisted(draw: Draw, half: float, tall: float, *, cutaway: bool) -> Array:
    """Return a body outline (28, 2) in x and z with a waist, and perhaps a cutaway on one side."""
    angle = np.linspace(0, 2 * math.pi, 28, endpoint=False) - math.pi / 2
    up = 0.5 + 0.5 * np.sin(angle)
    waist = draw.between(0.12, 0.35)
    upper = draw.between(0.68, 0.9)
    width = half * (1 + (upper - 1) * up) * (1 - waist * np.exp(-(((up - 0.58) / 0.14) ** 2)))
    x = width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.75
    z = tall * up
    if cutaway and draw.chance(0.5):
        notch = (x > 0.15 * half) & (up > 0.75)
        z = np.where(notch, np.minimum(z, tall * (0.78 + 0.1 * draw.between(0, 1))), z)
    return np.stack([x, z], axis=1)


_TENTS = ("ridge tent", "dome tent", "tunnel tent", "tepee", "pyramid tent", "pavilion")


def tent(draw: Draw) -> Blueprint:
    """Build a tent: ridge, dome, tunnel, tepee, pyramid or a pavilion on four posts."""
    body = Assembly("canvas", "pole", "door", "rope", "floor")
    finish = draw.finish("fabric")
    kind = draw.choose(_TENTS)
    width, length, height = draw.between(1.4, 2.6), draw.between(1.6, 3.4), draw.between(1.0, 1.9)
    features = list(_TENT_BUILDERS[kind](draw, body, finish, (width, length, height)))
    if kind in ("ridge tent", "tunnel tent", "pyramid tent") and draw.chance(0.6):
        for sx in (-1, 1):
            for sy in (-1, 1):
                start = (sx * 0.3 * width, sy * length / 2 * 0.8, 0.5 * height)
                end = (sx * (0.5 * width + draw.between(0.2, 0.6)), sy * (length / 2 + 0.2), 0.0)
                body.add("rope", (220, 214, 190), rod(start, end, 0.012, sides=5))
        features.append("ropes")
    if draw.chance(0.5) and kind not in ("dome tent", "tepee"):
        body.add("floor", draw.shade((90, 92, 96)), box(width, length, 0.02))
        features.append("a ground sheet")
    looks = (
        "large" if length > 2.5 else "small",
        "pointed" if kind in ("tepee", "pyramid tent", "ridge tent") else "rounded",
    )
    return Blueprint(kind, "shelter for camping", body, finish, looks, tuple(features))


def _ridge(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, length, height = size
    sag = draw.between(0.0, 0.15) * height
    for s in (-1, 1):
        across, along = np.meshgrid(np.linspace(0, 1, 4), np.linspace(-0.5, 0.5, 5))
        drop = sag * (1 - 4 * along**2)
        grid = np.stack([s * across * width / 2, along * length, (height - drop) * (1 - across)], axis=-1)
        body.add("canvas", finish, sheet(grid, 0.03))
        body.add("pole", (150, 150, 152), rod((0, s * length / 2, 0), (0, s * length / 2, height * 1.05), 0.025))
    ends = draw.choose(("open ends", "an open front", "closed ends", "an open flap"))
    triangle = extrude([(-width / 2, 0), (width / 2, 0), (0, height)], 0.02)
    if ends != "open ends":
        body.add("canvas", finish, triangle.moved(y=length / 2))
    if ends == "closed ends":
        body.add("door", finish, triangle.moved(y=-length / 2))
    if ends == "an open flap":
        flap = extrude([(-width / 2, 0), (-0.1 * width, 0), (0, height)], 0.02)
        body.add("door", finish, flap.moved(y=-length / 2))
    return [ends]


def _dome(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, length, height = size
    angle = np.linspace(0, 0.47 * math.pi, 7)
    power = draw.between(0.7, 1.2)
    outline = [(0.5 * math.cos(a) ** power, math.sin(a)) for a in angle]
    sides = draw.choose((20, 6, 8, 4))
    dome = shell(outline, wall=0.02, sides=sides, open_bottom=True).turned("z", 180 / sides)
    body.add("canvas", finish, dome.scaled(width * 1.1, length * 0.9, height))
    door = extrude(
        [(-0.25 * width, 0), (0.25 * width, 0), (0.18 * width, 0.45 * height), (-0.18 * width, 0.45 * height)], 0.04
    )
    body.add("door", draw.shade((60, 60, 66)), door.moved(y=-0.43 * length))
    if draw.chance(0.4):
        porch, reach = 0.6 * width, draw.between(0.3, 0.8)
        across, along = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(0, 1, 3))
        arch = 0.6 * height * np.sqrt(np.maximum(0.0, 1 - across**2))
        grid = np.stack([across * porch / 2, -0.35 * length - along * reach, arch * (1 - 0.2 * along)], axis=-1)
        body.add("canvas", finish, sheet(grid, 0.03))
        return ["a porch"]
    return ["a zipped door"]


def _tunnel(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, length, height = size
    across, along = np.meshgrid(np.linspace(0, math.pi, 11), np.linspace(-0.5, 0.5, 6))
    low = 1 - draw.between(0.0, 0.5) * (along + 0.5)
    grid = np.stack([width / 2 * np.cos(across), 1.3 * length * along, height * low * np.sin(across)], axis=-1)
    body.add("canvas", finish, sheet(grid, 0.03))
    half = [(width / 2 * math.cos(a), height * math.sin(a)) for a in np.linspace(0, math.pi, 11)]
    end = extrude(half, 0.03)
    body.add("canvas", finish, end.scaled(z=float(low[-1, 0])).moved(y=0.65 * length))
    if draw.chance(0.5):
        body.add("door", draw.shade(finish.rgb), end.moved(y=-0.6 * length))
        return ["a closed door"]
    return ["an open front"]


def _tepee(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, _, height = size
    tall, r = height * draw.between(1.3, 1.9), width / 2
    sides = draw.choose((20, 8, 6))
    body.add("canvas", finish, shell([(r, 0.0), (0.06 * r, tall)], wall=0.03, sides=sides, open_bottom=True))
    cross = draw.between(0.1, 0.25)
    for i in range(draw.whole(3, 6)):
        pole = rod((0.98 * r, 0, 0), (-cross * r, 0, tall * (1 + cross)), 0.025)
        body.add("pole", draw.shade((140, 100, 60)), pole.turned("z", 360 * i / 5 + 10))
    flap = extrude([(-0.3 * r, 0), (0.3 * r, 0), (0, 0.55 * tall)], 0.03)
    body.add("door", draw.shade((70, 60, 56)), flap.turned("x", -math.degrees(math.atan(r / tall))).moved(y=-r))
    return ["crossed poles"]


def _pyramid(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, length, height = size
    wall = draw.choose((0.0, draw.between(0.2, 0.5))) * height
    outline = [(0.71, 0.0), (0.69, max(wall, 0.02)), (0.04, height * draw.between(1.0, 1.5))]
    roof = shell(outline, wall=0.03, sides=4, open_bottom=True).turned("z", 45)
    body.add("canvas", finish, roof.scaled(x=width, y=0.8 * length))
    body.add("pole", (150, 150, 152), cylinder(0.03, 1.05 * height))
    return ["side walls"] if wall > 0 else ["a centre pole"]


def _pavilion(draw: Draw, body: Assembly, finish: Finish, size: tuple[float, float, float]) -> list[str]:
    width, length, height = size
    eaves = height * draw.between(1.0, 1.2)
    body.add("pole", (190, 190, 192), *supports.corner_legs(draw, width, length, eaves, thickness=0.035))
    rise = draw.between(0.05, 0.5)
    roof = lathe([(0.73, -0.1), (0.73, 0.0), (0.05, rise * height)], sides=4).turned("z", 45)
    body.add("canvas", finish, roof.scaled(x=width, y=length).moved(z=eaves))
    if draw.chance(0.4):
        body.add("canvas", finish, box(width, 0.02, eaves, center=(0, length / 2, eaves / 2)))
        return ["four posts", "a back wall"]
    return ["four posts"]


_TENT_BUILDERS = {
    "ridge tent": _ridge,
    "dome tent": _dome,
    "tunnel tent": _tunnel,
    "tepee": _tepee,
    "pyramid tent": _pyramid,
    "pavilion": _pavilion,
}
