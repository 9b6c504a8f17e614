"""Bottles, vases, bowls and mugs: one revolved outline, with shapes that reach from each class into the next."""

from __future__ import annotations

import numpy as np

from pointloom.data.synthetic.blueprint import Assembly, Blueprint
from pointloom.data.synthetic.draw import Draw
from pointloom.data.synthetic.primitives import Profile, Solid, arc, cylinder, ellipsoid, lathe, rod, shell, tube


def smooth(points: Profile, *, num: int = 14) -> list[tuple[float, float]]:
    """Return ``num`` points of a curve through (radius, height) points, rounded between them without overshoot."""
    radii, heights = np.array(points).T
    steps = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radii), np.diff(heights)))])
    at = np.linspace(0, steps[-1], 4 * num)
    kernel = np.ones(5) / 5
    curve = np.stack([np.interp(at, steps, radii), np.interp(at, steps, heights)])
    padded = np.pad(curve, ((0, 0), (2, 2)), mode="edge")
    rounded = np.stack([np.convolve(row, kernel, mode="valid") for row in padded])[:, ::4]
    rounded[:, 0], rounded[:, -1] = curve[:, 0], curve[:, -1]
    return [(float(r), float(z)) for r, z in rounded.T]


def bottle(draw: Draw) -> Blueprint:
    """Build a bottle: wine, beer, water, flask, jug or medicine bottle, with or without cap, label and handle."""
    body = Assembly("body", "cap", "label", "handle")
    kind = draw.choose(("wine bottle", "beer bottle", "water bottle", "flask", "jug", "medicine bottle", "decanter"))
    finish = draw.finish("glass", "glass", "plastic", "ceramic" if kind in ("jug", "decanter") else "metal")
    r = draw.between(0.032, 0.052) * (1.4 if kind in ("jug", "medicine bottle", "decanter") else 1.0)
    tall = draw.between(0.2, 0.34) * (0.6 if kind == "medicine bottle" else 1.0)
    necks = {"flask": (0.7, 0.95), "medicine bottle": (0.5, 0.85), "water bottle": (0.35, 0.9)}
    neck = r * draw.between(*necks.get(kind, (0.22, 0.42)))
    shoulder = tall * draw.between(0.4, 0.75)
    start = shoulder + tall * draw.between(0.03, 0.2)
    belly = draw.between(0.8, 1.1) if kind != "decanter" else draw.between(0.3, 0.6)
    profile = [(0.94 * r * belly, 0.0), (r, 0.05 * tall), (r, shoulder * 0.8), (r * 0.93, shoulder), (neck, start)]
    profile += [(neck * draw.between(0.9, 1.05), tall * 0.97), (neck * 1.12, tall)]
    outline = smooth(profile) if draw.chance(0.75) else profile
    features = []
    capped = draw.chance(0.6)
    vessel = lathe(outline) if capped else shell(outline, wall=0.08 * r)
    flat = draw.between(0.45, 0.8) if draw.chance(0.2) else 1.0
    body.add("body", finish, vessel.scaled(y=flat))
    if capped:
        wide = max(neck * draw.between(1.15, 1.5), 0.01)
        cap = cylinder(wide, draw.between(0.05, 0.12) * tall, top_radius=wide * draw.between(0.75, 1.0))
        body.add("cap", draw.finish("plastic", "metal"), cap.scaled(y=flat).moved(z=0.96 * tall))
        features.append(f"a {draw.choose(('screw cap', 'stopper'))}")
    if draw.chance(0.5):
        band = cylinder(1.02 * r, 0.3 * tall).scaled(y=flat).moved(z=0.2 * tall)
        body.add("label", draw.finish("plastic"), band)
        features.append("a label")
    if kind == "jug" or draw.chance(0.1):
        body.add("handle", finish, _handle(draw, (0.95 * r, 0.5 * shoulder), (neck, 0.92 * tall), 0.12 * r))
        features.append("a handle")
    looks = ("slim" if tall / r > 6 else "stout", "tall" if tall > 0.27 else "small")
    return Blueprint(kind, "container for liquids", body, finish, looks, tuple(features))


def _handle(draw: Draw, low: tuple[float, float], high: tuple[float, float], thick: float) -> Solid:
    """Return a bent bar on the +x side from a low to a high (radius, height) place on the wall."""
    reach = max(low[0], high[0]) + draw.between(0.5, 1.1) * abs(high[1] - low[1])
    if draw.chance(0.3):
        mid = 0.5 * (reach + max(low[0], high[0]))
        path = np.array([(low[0], 0, low[1]), (mid, 0, low[1]), (mid, 0, high[1]), (high[0], 0, high[1])])
        return tube(path, thick)
    bend = ((high[0] + low[0]) / 2 + 1.3 * (reach - high[0]), 0, (low[1] + high[1]) / 2)
    return tube(arc((0.97 * low[0], 0, low[1]), bend, (0.97 * high[0], 0, high[1]), num=9), thick)


def vase(draw: Draw) -> Blueprint:
    """Build a vase: round, amphora, cylinder, trumpet, bowl-shaped or square, sometimes with handles or twigs."""
    body = Assembly("body", "foot", "handle", "flowers")
    finish = draw.finish("ceramic", "ceramic", "glass", "metal")
    shapes = {
        "round vase": [(0.5, 0.0), (0.95, 0.3), (1.0, 0.5), (0.6, 0.8), (0.4, 0.9), (0.5, 1.0)],
        "amphora": [(0.35, 0.0), (0.75, 0.35), (1.0, 0.62), (0.5, 0.8), (0.35, 0.88), (0.5, 1.0)],
        "cylinder vase": [(0.85, 0.0), (0.9, 0.3), (0.95, 0.7), (1.0, 1.0)],
        "trumpet vase": [(0.6, 0.0), (0.35, 0.2), (0.4, 0.5), (0.65, 0.8), (1.0, 1.0)],
        "bud vase": [(0.8, 0.0), (1.0, 0.2), (0.8, 0.4), (0.3, 0.6), (0.25, 0.85), (0.35, 1.0)],
        "planter vase": [(0.7, 0.0), (0.9, 0.4), (1.0, 0.8), (1.0, 1.0)],
    }
    kind = draw.choose(list(shapes))
    tall = draw.between(0.2, 0.45)
    wide = tall * draw.between(0.2, 0.42)
    profile = [(wide * r * draw.between(0.85, 1.12), tall * z) for r, z in shapes[kind]]
    sides = draw.choose((20, 20, 20, 4, 6, 8))
    outline = smooth(profile) if draw.chance(0.8) else profile
    body.add("body", finish, shell(outline, wall=0.07 * wide, sides=sides).turned("z", 180 / sides))
    features = []
    if draw.chance(0.25):
        body.add("foot", finish, cylinder(0.75 * wide, 0.06 * tall, top_radius=0.5 * wide).moved(z=-0.05 * tall))
        features.append("a foot")
    if draw.chance(0.8 if kind == "amphora" else 0.1):
        handle = _handle(draw, profile[len(profile) // 3], profile[-2], 0.09 * wide)
        body.add("handle", finish, handle, handle.turned("z", 180))
        features.append("two handles")
    if draw.chance(0.25):
        _flowers(draw, body, tall, 0.5 * profile[-1][0])
        features.append("flowers")
    looks = (
        "slender" if wide < 0.33 * tall else "wide",
        {4: "square", 6: "hexagonal", 8: "octagonal"}.get(sides, "round"),
    )
    return Blueprint(kind, "decorative vessel", body, finish, looks, tuple(features))


def _flowers(draw: Draw, body: Assembly, tall: float, spread: float) -> None:
    bloom = draw.finish("fabric").rgb
    for _ in range(draw.whole(2, 6)):
        angle, lean = draw.between(0, 2 * np.pi), draw.between(0.2, 1.0)
        x, y, z = spread * np.cos(angle), spread * np.sin(angle), tall * draw.between(1.25, 1.7)
        top = (x * 3 * lean, y * 3 * lean, z)
        body.add(
            "flowers",
            draw.shade((70, 120, 50)),
            rod((0.3 * x, 0.3 * y, 0.3 * tall), top, 0.008 * tall + 0.001, sides=5),
        )
        head = draw.between(0.05, 0.1) * tall
        body.add("flowers", draw.shade(bloom), ellipsoid(head, head, 0.7 * head, center=top))


def bowl(draw: Draw) -> Blueprint:
    """Build a bowl: from a flat plate-like dish to a deep cup, with foot, rim, lid or two handles."""
    body = Assembly("body", "foot", "handle", "lid")
    finish = draw.finish("ceramic", "ceramic", "wood", "metal", "glass", "plastic")
    r = draw.between(0.06, 0.16)
    deep = r * draw.choose((draw.between(0.25, 0.5), draw.between(0.5, 0.9), draw.between(0.9, 1.5)), 2, 4, 3)
    base = draw.between(0.3, 0.75)
    bulge = draw.between(0.5, 1.1)
    profile = [(base * r, 0.0), ((base + (1 - base) * bulge) * r, 0.45 * deep), (r, deep)]
    if draw.chance(0.25):
        profile.append((r * draw.between(1.05, 1.3), deep * 1.02))
    sides = draw.choose((24, 24, 24, 8, 4))
    vessel = shell(smooth(profile), wall=draw.between(0.04, 0.1) * r, sides=sides)
    body.add("body", finish, vessel.turned("z", 180 / sides))
    features = []
    if draw.chance(0.4):
        foot = draw.between(0.05, 0.3) * deep
        body.add("foot", finish, cylinder(base * r, foot, top_radius=0.8 * base * r).moved(z=-0.95 * foot))
        features.append("a foot")
    if draw.chance(0.2):
        for turn in (0, 180)[: draw.whole(1, 2)]:
            grip = _handle(draw, (0.95 * r, 0.6 * deep), (r, 0.9 * deep), 0.07 * r)
            body.add("handle", finish, grip.turned("z", turn))
        features.append("handles")
    if draw.chance(0.12):
        dome = [(1.02 * r, 0.0), (0.8 * r, 0.25 * r), (0.3 * r, 0.4 * r), (0.1 * r, 0.42 * r), (0.1 * r, 0.52 * r)]
        body.add("lid", finish, lathe(dome, sides=24).moved(z=deep))
        features.append("a lid")
    kind = "dish" if deep < 0.45 * r else "deep bowl" if deep > 0.85 * r else "bowl"
    looks = ("shallow" if deep < 0.5 * r else "deep", {4: "square", 8: "octagonal"}.get(sides, "round"))
    return Blueprint(kind, "vessel for food", body, finish, looks, tuple(features))


def mug(draw: Draw) -> Blueprint:
    """Build a mug: coffee mug, tea cup with saucer, beer stein, tumbler without handle or travel mug with lid."""
    body = Assembly("body", "handle", "saucer", "lid")
    kind = draw.choose(("coffee mug", "tea cup", "beer mug", "tumbler", "travel mug"), 5, 3, 2, 2, 1.5)
    finish = draw.finish(
        *{"beer mug": ("glass", "wood"), "travel mug": ("metal", "plastic")}.get(kind, ("ceramic", "glass"))
    )
    r = draw.between(0.035, 0.05)
    tall = r * draw.between(
        *{"tea cup": (1.0, 1.6), "travel mug": (3.0, 5.0), "beer mug": (2.2, 3.4)}.get(kind, (1.7, 2.9))
    )
    base = draw.between(0.45, 0.7) if kind == "tea cup" else draw.between(0.7, 1.05)
    middle = draw.between(0.85, 1.05) * (base + 1) / 2 * (1.1 if kind == "tea cup" else 1.0)
    profile = [(base * r, 0.0), (middle * r, 0.5 * tall), (r, tall)]
    body.add("body", finish, shell(smooth(profile), wall=0.08 * r))
    features = []
    if draw.chance({"tumbler": 0.0, "travel mug": 0.4}.get(kind, 0.92)):
        low, high = draw.between(0.12, 0.35), draw.between(0.7, 0.92)
        thick = draw.between(0.07, 0.15) * r
        body.add(
            "handle", finish, _handle(draw, ((base + low * (1 - base)) * r, low * tall), (0.97 * r, high * tall), thick)
        )
        features.append("a handle")
    if kind == "tea cup" and draw.chance(0.5):
        plate = shell([(0.8 * r, 0.0), (1.2 * r, 0.05 * r), (1.8 * r, 0.25 * r)], wall=0.06 * r)
        body.add("saucer", finish, plate.moved(z=-0.08 * r))
        features.append("a saucer")
    if kind == "travel mug" or draw.chance(0.06):
        body.add("lid", draw.finish("plastic"), cylinder(1.03 * r, 0.25 * r, top_radius=0.8 * r).moved(z=tall))
        features.append("a lid")
    looks = ("tall" if tall > 2.6 * r else "short", "tapered" if base < 0.8 else "straight")
    return Blueprint(kind, "drinking vessel", body, finish, looks, tuple(features))
