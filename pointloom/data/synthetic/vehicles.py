"""Cars and airplanes; they face -y."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Color, Draw, Finish
from pointloom.data.synthetic.primitives import Solid, box, cylinder, ellipsoid, extrude, loft, rod

# Side views, front to back, as fractions of length and height: where the hood ends, the roof begins and ends, the tail.
_CARS = {
    "sedan": ((0.26, 0.38, 0.72, 0.86), (3.9, 4.8), (1.3, 1.5)),
    "hatchback": ((0.24, 0.36, 0.82, 0.97), (3.3, 4.1), (1.4, 1.6)),
    "off-road car": ((0.26, 0.33, 0.9, 0.98), (3.8, 4.8), (1.6, 1.95)),
    "van": ((0.08, 0.2, 0.96, 0.99), (4.2, 5.6), (1.9, 2.5)),
    "pickup truck": ((0.26, 0.34, 0.54, 0.6), (4.8, 5.6), (1.65, 1.9)),
    "sports car": ((0.34, 0.48, 0.66, 0.93), (3.9, 4.5), (1.1, 1.25)),
    "convertible": ((0.32, 0.4, 0.42, 0.44), (3.9, 4.5), (1.2, 1.4)),
    "bus": ((0.01, 0.04, 0.98, 1.0), (6.5, 9.0), (2.5, 3.1)),
}


def car(draw: Draw) -> Blueprint:
    """Build a car: sedan, hatchback, off-road car, van, pickup, sports car, convertible or bus."""
    body = Assembly("body", "cabin", "wheel", "light", "extra")
    finish = draw.finish("painted metal")
    kind = draw.choose(list(_CARS))
    marks, lengths, heights = _CARS[kind]
    length, height = draw.between(*lengths), draw.between(*heights)
    width = draw.between(1.6, 1.95) * (1.25 if kind == "bus" else 1.0)
    radius = draw.between(0.28, 0.36) * (1.3 if kind in ("off-road car", "bus") else 1.0)
    floor, belt = 0.75 * radius, height * draw.between(0.5, 0.6)
    a, b, c, d = (m + draw.between(-0.02, 0.02) for m in marks)
    nose, tail = draw.between(0.75, 1.0), draw.between(0.85, 1.0)
    hull = [(0.0, floor), (0.0, belt * nose), (a, belt), (1.0, belt * tail), (1.0, floor)]
    body.add("body", finish, _side_view(hull, width, length))
    glass: Color = draw.shade((70, 84, 98))
    cabin = [(a, belt), (b, height), (c, height), (d, belt)]
    body.add(
        "cabin",
        finish if kind in ("van", "bus") else glass,
        _side_view(cabin, width * draw.between(0.82, 0.94), length),
    )
    for y in (draw.between(0.15, 0.22), draw.between(0.76, 0.84)):
        for s in (-1, 1):
            wheel = cylinder(radius, 0.24).turned("y", 90).moved(s * width / 2 - 0.12, (y - 0.5) * length, radius)
            body.add("wheel", draw.shade((34, 34, 36)), wheel)
    for s in (-1, 1):
        lamp = box(0.3, 0.08, 0.14, center=(s * 0.36 * width, -length / 2, 0.75 * belt))
        body.add("light", (240, 236, 200), lamp)
    features = ["four wheels", *_car_extras(draw, body, finish, kind, (width, length, height, belt))]
    looks = ("long" if length > 4.6 else "short", "low" if height < 1.35 else "high" if height > 1.7 else "rounded")
    return Blueprint(
        kind if kind != "sedan" else "sedan car", "vehicle for the road", body, finish, looks, tuple(features)
    )


def _side_view(outline: list[tuple[float, float]], width: float, length: float) -> Solid:
    """Return a slab from a side view (fraction of length from the front, height), across the vehicle's width."""
    points = np.array([((0.5 - y) * length, z) for y, z in reversed(outline)])
    if _area(points) < 0:
        points = points[::-1]
    return extrude(points, width).turned("z", -90)


def _area(points: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
    x, y = points.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _car_extras(
    draw: Draw, body: Assembly, finish: Finish, kind: str, size: tuple[float, float, float, float]
) -> list[str]:
    width, length, height, belt = size
    features = []
    if kind == "pickup truck":
        for s in (-1, 1):
            body.add(
                "extra", finish, box(0.08, 0.36 * length, 0.3, center=(s * 0.46 * width, 0.31 * length, belt + 0.1))
            )
        features.append("a load bed")
    if kind in ("off-road car", "van", "hatchback") and draw.chance(0.4):
        body.add("extra", (60, 60, 64), box(0.7 * width, 0.35 * length, 0.1, center=(0, 0.1 * length, height + 0.06)))
        features.append("a roof rack")
    if kind in ("sports car", "sedan") and draw.chance(0.4):
        wing = box(0.9 * width, 0.25, 0.04, center=(0, 0.47 * length, belt + 0.22))
        body.add(
            "extra",
            finish,
            wing,
            *(box(0.05, 0.1, 0.25, center=(s * 0.3 * width, 0.47 * length, belt + 0.1)) for s in (-1, 1)),
        )
        features.append("a spoiler")
    if draw.chance(0.5):
        for s in (-1, 1):
            body.add(
                "extra", finish, box(0.16, 0.1, 0.12, center=(s * (width / 2 + 0.05), -0.16 * length, belt + 0.05))
            )
        features.append("mirrors")
    return features


def airplane(draw: Draw) -> Blueprint:
    """Build an airplane: airliner, propeller plane, biplane, glider or jet fighter."""
    body = Assembly("fuselage", "wing", "tail", "engine", "landing gear")
    finish = draw.finish("painted metal", "metal")
    kind = draw.choose(("airliner", "propeller airplane", "biplane", "glider", "fighter jet"))
    length = draw.between(0.9, 1.3)
    radius = length * {"airliner": 0.06, "glider": 0.035}.get(kind, 0.055) * draw.between(0.85, 1.25)
    t = np.array([0.0, 0.04, 0.12, 0.3, 0.55, 0.8, 1.0])
    shape = np.array([0.15, 0.6, 0.95, 1.0, 0.95, 0.55, 0.2])
    circle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rings = np.empty((7, 16, 3))
    rings[:, :, 0] = -radius * shape[:, None] * np.cos(circle)
    rings[:, :, 1] = ((t - 0.5) * length)[:, None]
    rings[:, :, 2] = radius * (shape[:, None] * np.sin(circle) + 0.6 * t[:, None] ** 2)
    body.add("fuselage", finish, loft(rings))
    features = _wings(draw, body, finish, kind, length=length, radius=radius)
    _tail(draw, body, finish, length, radius)
    if kind in ("propeller airplane", "biplane"):
        blades = draw.choose((2, 3, 4))
        for i in range(blades):
            blade = box(0.06 * length, 0.01, 0.2 * length, center=(0, 0, 0.1 * length)).turned("y", 360 * i / blades)
            body.add("engine", (60, 56, 52), blade.moved(y=-0.51 * length))
        features.append("a propeller")
    if draw.chance(0.8 if kind in ("propeller airplane", "biplane") else 0.4):
        _gear(body, length, radius)
        features.append("landing gear")
    looks = ("slender" if radius < 0.05 * length else "stout", "streamlined")
    return Blueprint(kind, "flying machine", body, finish, looks, tuple(features))


def _panel(root: tuple[float, float], tip: tuple[float, float], span: float, rise: float, thick: float) -> Solid:
    """Return a flat wing half on the +x side; root and tip are (y of its front edge, chord)."""
    rings = np.empty((2, 4, 3))
    for ring, (front, chord), x in zip(rings, (root, tip), (0.0, span), strict=True):
        ring[:, 0] = x
        ring[:, 1] = (front, front + chord, front + chord, front)
        ring[:, 2] = rise * x / span + np.array([-1, -1, 1, 1]) * thick / 2
    return loft(rings)


def _both(panel: Solid) -> tuple[Solid, Solid]:
    """Return a panel and its mirror image in x, with triangles turned so that normals still point outwards."""
    return panel, Solid(panel.vertices * (-1.0, 1.0, 1.0), panel.faces[:, ::-1])


def _wings(draw: Draw, body: Assembly, finish: Finish, kind: str, *, length: float, radius: float) -> list[str]:
    spans = {"glider": (0.7, 0.95), "fighter jet": (0.25, 0.4), "airliner": (0.42, 0.6)}
    span = length * draw.between(*spans.get(kind, (0.4, 0.55)))
    chord = length * (draw.between(0.07, 0.11) if kind == "glider" else draw.between(0.15, 0.22))
    sweep, taper, front = draw.between(-0.03, 0.06), draw.between(0.6, 1.0), -0.2 * length
    if kind in ("airliner", "fighter jet"):
        sweep, taper = draw.between(0.25, 0.7), draw.between(0.15, 0.45)
        chord *= 2.0 if kind == "fighter jet" else 1.2
        front = -0.12 * length
    height = draw.choose((-0.6, 0.0, 0.8)) * radius
    panel = _panel((front, chord), (front + sweep * span, taper * chord), span, draw.between(-0.02, 0.1) * span, 0.016)
    body.add("wing", finish, *_both(panel.moved(z=height)))
    features = ["swept wings" if sweep > 0.2 else "straight wings"]
    if kind == "biplane":
        gap = draw.between(0.16, 0.24) * length
        body.add("wing", finish, *_both(panel.moved(z=height + gap)))
        for s in (-0.7, -0.15, 0.15, 0.7):
            body.add(
                "wing",
                finish,
                rod((s * span, front + chord / 2, height), (s * span, front + chord / 2, height + gap), 0.008),
            )
        features = ["two pairs of wings"]
    if kind == "airliner":
        num = draw.choose((1, 2), 3, 1)
        for i in range(num):
            x = span * (0.35 + 0.3 * i)
            pod = ellipsoid(0.035, 0.08, 0.035, center=(0, 0, 0), power=3).scaled(length, length, length)
            y = front + sweep * x
            body.add("engine", finish, *(pod.moved(s * x, y, height - 0.05 * length) for s in (-1, 1)))
        features.append("two engines" if num == 1 else "four engines")
    return features


def _tail(draw: Draw, body: Assembly, finish: Finish, length: float, radius: float) -> None:
    y, z = 0.36 * length, 0.5 * radius
    chord, span = 0.12 * length, draw.between(0.13, 0.2) * length
    half = _panel((y, chord), (y + 0.05 * length, 0.6 * chord), span, 0.0, 0.012)
    fin = _panel(
        (y - 0.02, 1.2 * chord), (y + 0.06 * length, 0.6 * chord), draw.between(0.12, 0.2) * length, 0.0, 0.014
    )
    high = draw.chance(0.3)
    body.add("tail", finish, *_both(half.moved(z=z + (0.13 * length if high else 0.0))))
    body.add("tail", finish, fin.turned("y", -90).moved(z=z))


def _gear(body: Assembly, length: float, radius: float) -> None:
    dark: Color = (40, 40, 42)
    low = -radius - 0.07 * length
    for x, y in ((0.0, -0.36), (-0.08, 0.0), (0.08, 0.0)):
        body.add(
            "landing gear",
            dark,
            rod((0.5 * x * length, y * length, -0.5 * radius), (x * length, y * length, low), 0.008),
        )
        body.add(
            "landing gear",
            dark,
            cylinder(0.03 * length, 0.02).turned("y", 90).moved(x * length - 0.01, y * length, low),
        )
