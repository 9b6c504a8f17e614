"""Benches, sofas and beds: things for several people, or for lying on."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic import supports
from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Draw, Finish
from pointloom.data.synthetic.primitives import Solid, box, cylinder, ellipsoid, extrude, rod


def bench(draw: Draw) -> Blueprint:
    """Build a bench: plank, slatted or padded seat on legs, slabs or trestles, with or without back and arms."""
    body = Assembly("seat", "base", "back", "arm")
    frame = draw.finish("wood", "wood", "metal", "painted metal")
    width, depth, height = draw.between(0.8, 1.8), draw.between(0.28, 0.5), draw.between(0.35, 0.5)
    thin, thick = draw.between(0.03, 0.06), draw.between(0.025, 0.045)
    features = []
    if draw.chance(0.5):
        num = draw.whole(3, 5)
        rows = (np.arange(num) + 0.5) / num * depth - depth / 2
        body.add("seat", frame, *(box(width, 0.75 * depth / num, thin, center=(0, y, height)) for y in rows))
        features.append("a slatted seat")
    elif draw.chance(0.4):
        thin = draw.between(0.06, 0.13)
        soft = draw.finish("fabric", "leather")
        body.add("seat", soft, ellipsoid(width / 2, depth / 2, thin / 2, center=(0, 0, height), power=7))
        features.append("a padded seat")
    else:
        body.add("seat", frame, box(width, depth, thin, center=(0, 0, height)))
        features.append("a plank seat")
    base = draw.choose(("four legs", "solid sides", "trestle legs", "a sled base"), 4, 2, 1.5, 1)
    body.add("base", frame, *_low_base(draw, base, width=width, depth=depth, height=height - thin / 2, thick=thick))
    features.append(base)
    has_back = draw.chance(0.5)
    if has_back:
        body.add("back", frame, *_bench_back(draw, width, depth, height))
        features.append("a backrest")
    if draw.chance(0.55 if has_back else 0.15):
        rise, x = draw.between(0.16, 0.25), width / 2 - thick
        for s in (-1, 1):
            body.add("arm", frame, box(0.05, depth, 0.03, center=(s * x, 0, height + rise)))
            body.add("arm", frame, rod((s * x, -0.4 * depth, height), (s * x, -0.4 * depth, height + rise), 0.02))
        features.append("armrests")
    name = "park bench" if has_back and frame.material != "plastic" else "bench"
    looks = ("long" if width > 1.3 else "short", "narrow" if depth < 0.36 else "deep")
    return Blueprint(name, "seat for several people", body, frame, looks, tuple(features))


def _low_base(draw: Draw, base: str, *, width: float, depth: float, height: float, thick: float) -> list[Solid]:
    if base == "solid sides":
        return supports.slab_ends(draw.between(0.75, 1.0) * width, depth, height, thickness=1.5 * thick)
    if base == "trestle legs":
        return supports.trestles(width, depth, height, thickness=thick)
    if base == "a sled base":
        return supports.sled(0.85 * width, depth, height, thickness=0.6 * thick)
    return supports.corner_legs(draw, 0.95 * width, depth, height, thickness=thick)


def _bench_back(draw: Draw, width: float, depth: float, height: float) -> list[Solid]:
    rise, lean = draw.between(0.25, 0.5), draw.between(0.0, 0.12)
    y, x = depth / 2, width / 2 - 0.03
    if draw.chance(0.25):
        return [box(width, 0.04, rise, center=(0, y, height + rise / 2))]
    solids = [rod((s * x, y, height), (s * x, y + lean, height + rise), 0.025, sides=4) for s in (-1, 1)]
    if draw.chance(0.6):
        num = draw.whole(1, 3)
        return solids + [
            box(width, 0.025, 0.55 * rise / num, center=(0, y + lean * z, height + rise * z))
            for z in (np.arange(num) + 0.8) / num * 0.95
        ]
    num = draw.whole(6, 9)
    bars = [rod((s, y, height), (s, y + lean, height + rise), 0.012, sides=4) for s in np.linspace(-x, x, num)]
    return solids + bars + [box(width, 0.03, 0.06, center=(0, y + lean, height + rise))]


def sofa(draw: Draw) -> Blueprint:
    """Build a sofa: one to four seats, block, rolled or no arms, low or high back, sometimes with a chaise."""
    body = Assembly("base", "cushion", "back", "arm", "leg")
    soft = draw.finish("fabric", "fabric", "leather")
    seats = draw.choose((1, 2, 3, 4), 1.5, 3, 3, 1)
    width, depth = seats * draw.between(0.55, 0.7) + 0.1, draw.between(0.7, 1.0)
    leg, thick = draw.between(0.03, 0.2), draw.between(0.14, 0.3)
    seat, rise = leg + thick, draw.between(0.2, 0.6)
    body.add("base", soft, box(width, depth, thick, center=(0, 0, leg + thick / 2)))
    body.add("leg", draw.finish("wood", "metal"), *supports.corner_legs(draw, width, depth, leg, thickness=0.03))
    soft_power, plump = draw.between(4, 9), draw.between(0.05, 0.1)
    for i in range(seats):
        x = (i + 0.5) / seats * width - width / 2
        half = 0.48 * width / seats
        body.add(
            "cushion", soft, ellipsoid(half, 0.45 * depth, plump, center=(x, -0.05, seat + plump), power=soft_power)
        )
    features = [f"{('one seat', 'two seats', 'three seats', 'four seats')[seats - 1]}"]
    backs = draw.choose(("a solid back", "back cushions", "no back"), 5, 5, 1)
    if backs != "no back":
        lean, y = draw.between(0, 12), depth / 2 - 0.08
        num = seats if backs == "back cushions" else 1
        for i in range(num):
            x = (i + 0.5) / num * width - width / 2
            block = ellipsoid(0.49 * width / num, draw.between(0.09, 0.13), rise / 2 + 0.1, power=soft_power)
            body.add("back", soft, block.turned("x", -lean).moved(x, y, seat + rise / 2))
    features.append(backs)
    arms = draw.choose(("block arms", "rolled arms", "no arms"), 5, 3, 2)
    for s in (-1, 1) if arms != "no arms" else ():
        _sofa_arm(body, soft, arms, (s * width / 2, depth, leg, seat))
    features.append(arms)
    if seats > 1 and draw.chance(0.2):
        side, length = draw.choose((-1, 1)), draw.between(0.4, 0.8)
        x = side * (width / 2 - 0.3)
        body.add("base", soft, box(0.6, length, thick + plump, center=(x, -(depth + length) / 2, leg + thick / 2)))
        features.append("a chaise")
    name = ("armchair", "loveseat", "sofa", "couch")[seats - 1]
    looks = ("wide" if seats > 2 else "compact", "low" if rise < 0.4 else "high-backed", "soft")
    return Blueprint(name, "upholstered seat", body, soft, looks, tuple(features))


def _sofa_arm(body: Assembly, soft: Finish, style: str, place: tuple[float, float, float, float]) -> None:
    x, depth, leg, seat = place
    side, rise, thick = (1 if x > 0 else -1), 0.16, 0.14
    tall = seat - leg + rise
    body.add("arm", soft, box(thick, depth, tall, center=(x + side * thick / 2, 0, leg + tall / 2)))
    if style == "rolled arms":
        roll = (
            cylinder(0.65 * thick, depth, sides=14).turned("x", 90).moved(x + side * thick / 2, depth / 2, leg + tall)
        )
        body.add("arm", soft, roll)


def bed(draw: Draw) -> Blueprint:
    """Build a bed: single to king size, with headboard, footboard, posts, canopy, a bunk or nothing but a base."""
    body = Assembly("frame", "mattress", "pillow", "headboard", "footboard", "post", "blanket")
    frame, linen = draw.finish("wood", "wood", "metal", "painted metal"), draw.finish("fabric")
    width, length = draw.between(0.8, 2.0), draw.between(1.75, 2.2)
    leg, thick, mattress = draw.between(0.05, 0.32), draw.between(0.08, 0.2), draw.between(0.1, 0.3)
    kind = draw.choose(("bed", "four-poster bed", "bunk bed", "day bed"), 7, 1.2, 1, 1.5)
    if kind in ("bunk bed", "day bed"):
        width = draw.between(0.7, 1.0)
    levels = (0.0, draw.between(0.8, 1.1)) if kind == "bunk bed" else (0.0,)
    for z in levels:
        _bed_level(draw, body, frame, linen, (width, length, leg + z, thick, mattress))
    top = leg + thick + mattress + levels[-1]
    features = ["pillows"]
    if kind in ("bunk bed", "four-poster bed"):
        tall = top + (draw.between(0.2, 0.4) if kind == "bunk bed" else draw.between(0.7, 1.2))
        posts = supports.corner_legs(draw, width + 0.06, length + 0.06, tall, thickness=0.035)
        body.add("post", frame, *posts)
        features.append("four posts")
        if draw.chance(0.6):
            body.add("post", frame, *supports.stretchers(width + 0.06, length + 0.06, tall - 0.03, thickness=0.04))
    else:
        body.add("frame", frame, *supports.corner_legs(draw, width, length, leg, thickness=0.04))
    if kind != "bunk bed" and draw.chance(0.8):
        high = draw.between(0.15, 0.8)
        body.add("headboard", frame, _board(draw, width, top + high).moved(y=length / 2))
        features.append("a headboard")
        if draw.chance(0.45):
            body.add("footboard", frame, _board(draw, width, top + draw.between(0, 0.5) * high).moved(y=-length / 2))
            features.append("a footboard")
    if kind == "day bed":
        body.add("headboard", frame, box(0.05, length, top + 0.3, center=(width / 2, 0, (top + 0.3) / 2)))
        features.append("a long side rail")
    looks = ("double" if width > 1.3 else "single", "high" if top > 0.6 else "low")
    return Blueprint(kind, "place to sleep", body, frame, looks, tuple(features))


def _bed_level(
    draw: Draw, body: Assembly, frame: Finish, linen: Finish, size: tuple[float, float, float, float, float]
) -> None:
    """Add a frame with mattress and pillows; its head is at +y."""
    width, length, z, thick, mattress = size
    body.add("frame", frame, box(width, length, thick, center=(0, 0, z + thick / 2)))
    z += thick
    middle = (0, 0, z + mattress / 2)
    white = draw.shade((236, 234, 228), spread=0.05)
    body.add("mattress", white, ellipsoid(0.49 * width, 0.49 * length, mattress / 2, center=middle, power=10))
    num = 1 if width < 1.2 else 2
    for i in range(num):
        x = ((i + 0.5) / num - 0.5) * width
        body.add(
            "pillow", white, ellipsoid(0.4 * width / num, 0.17, 0.07, center=(x, 0.38 * length, z + mattress), power=3)
        )
    if draw.chance(0.6):
        part = draw.between(0.4, 0.7) * length
        cover = box(1.02 * width, part, 0.6 * mattress, center=(0, (part - length) / 2, z + 0.75 * mattress))
        body.add("blanket", linen, cover)


def _board(draw: Draw, width: float, height: float) -> Solid:
    """Return a flat, arched or round-shouldered panel that stands on the floor, in the xz plane."""
    if draw.chance(0.6):
        return box(width, 0.05, height, center=(0, 0, height / 2))
    angle = np.linspace(0, np.pi, 11)
    top = np.stack([width / 2 * np.cos(angle), height * (0.65 + 0.35 * np.sin(angle))], axis=1)
    return extrude(np.concatenate([[(-width / 2, 0.0), (width / 2, 0.0)], top]), 0.05)
