"""Words for what can be measured on a cloud: its colours and its proportions."""

from collections.abc import Mapping
from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from pointloom.data.materials import NEUTRAL, bytes_to_linear

MIN_SHARE = 0.2
MAX_COLORS = 2
ANCHORS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((0, 0, 0), (28, 28, 28)),
    "grey": ((75, 75, 75), (128, 128, 128), (185, 185, 185), (105, 115, 125), (150, 145, 135)),
    "white": ((255, 255, 255), (236, 236, 232)),
    "red": ((255, 0, 0), (200, 30, 30), (140, 20, 25), (220, 85, 75)),
    "orange": ((255, 140, 0), (230, 110, 30), (250, 170, 90)),
    "yellow": ((255, 230, 0), (240, 205, 80), (255, 245, 140)),
    "green": ((0, 128, 0), (0, 220, 0), (60, 180, 60), (150, 205, 80), (40, 80, 40), (105, 120, 55)),
    "turquoise": ((64, 224, 208), (0, 150, 150), (130, 220, 220)),
    "blue": ((0, 0, 255), (0, 85, 255), (0, 130, 255), (30, 60, 160), (60, 120, 220), (130, 180, 240), (20, 30, 85)),
    "purple": ((128, 0, 128), (150, 0, 255), (220, 0, 255), (110, 60, 170), (180, 120, 210), (70, 30, 90)),
    "pink": ((255, 105, 180), (255, 180, 195), (230, 130, 160)),
    "brown": ((120, 70, 30), (85, 50, 25), (150, 100, 60), (55, 38, 25), (165, 120, 85)),
    "beige": ((225, 200, 160), (240, 225, 200), (200, 172, 135)),
}
"""Colour word -> sRGB examples; a colour is called like the example that looks most like it (CIELAB distance)."""

_NAMES = tuple(ANCHORS)
_BITS = 5
_ANGLES = np.deg2rad(np.arange(0, 180, 5, dtype=np.float32))


def color_words(color: UInt8[np.ndarray, "a n 3"]) -> list[list[str]]:
    """Return up to two colour words per object, the commoner first, each true of more than a fifth of its points.

    Objects that are all over in the grey that stands for "no colour known" have none.
    """
    shift = 8 - _BITS
    level = (color >> shift).astype(np.int64)
    name = _lookup()[level[..., 0], level[..., 1], level[..., 2]]
    share = np.stack([(name == number).mean(1) for number in range(len(_NAMES))], axis=1)
    known = ~(color == NEUTRAL).all((1, 2))
    order = np.argsort(-share, axis=1, kind="stable")[:, :MAX_COLORS]
    return [
        [_NAMES[number] for number in best if fits and shares[number] > MIN_SHARE]
        for best, shares, fits in zip(order, share, known, strict=True)
    ]


@cache
def _lookup() -> NDArray[np.int64]:
    """Return the number of the colour word of every colour, quantised to 5 bits per channel."""
    middle = (np.arange(1 << _BITS) << (8 - _BITS)) + (1 << (7 - _BITS))
    grid = np.stack(np.meshgrid(middle, middle, middle, indexing="ij"), axis=-1)
    grid[-1, -1, -1] = 255
    examples = [(number, rgb) for number, name in enumerate(_NAMES) for rgb in ANCHORS[name]]
    anchor = _lab(np.array([rgb for _, rgb in examples], dtype=np.uint8))
    lab = _lab(grid.reshape(-1, 3).astype(np.uint8))
    nearest = ((lab[:, None] - anchor[None]) ** 2).sum(-1).argmin(1)
    found: NDArray[np.int64] = np.array([number for number, _ in examples])[nearest].reshape(grid.shape[:3])
    return found


def _lab(color: UInt8[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Return CIELAB of sRGB bytes (white point D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = bytes_to_linear(color) @ (to_xyz / to_xyz.sum(1, keepdims=True)).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    return lab.astype(np.float32)


def shape_words(coord: Float32[np.ndarray, "a n 3"]) -> list[list[str]]:
    """Return adjectives per object, from its height (z) and the width and depth of its outline seen from above.

    Width and depth are the sides of the smallest upright box around the object, width is the longer one.
    """
    height = np.ptp(coord[..., 2], axis=1)
    spans = _spans(coord)
    width, depth = _footprint(spans)
    sides = np.stack([height, width, depth], axis=1)
    longest, shortest = sides.max(1), sides.min(1)
    even = width < 1.12 * depth
    evenness = spans.max(1) / np.maximum(spans.min(1), 1e-6)
    found = {
        "tall": height > 1.5 * width,
        "flat": height < 0.2 * depth,
        "low": (height < 0.5 * depth) & (height >= 0.2 * depth),
        "long": (width > 2 * depth) & (width > height),
        "thin": (shortest < 0.2 * longest) & (height >= 0.2 * depth),
        "compact": longest < 1.35 * shortest,
        "round": evenness < 1.1,
        "square": even & (evenness > 1.3),
        "horizontal": (width > 2 * depth) & (width > 2 * height) & (height >= 0.2 * depth),
    }
    return [[word for word, is_true in found.items() if is_true[row]] for row in range(len(coord))]


def taper_words(coord: Float32[np.ndarray, "a n 3"]) -> list[str]:
    """Return where each object is widest, ``top`` or ``bottom``, empty where neither end is."""
    z = coord[..., 2]
    low, size = z.min(1, keepdims=True), np.ptp(z, axis=1, keepdims=True)
    center = (coord.max(1, keepdims=True) + coord.min(1, keepdims=True))[..., :2] / 2
    radius = np.linalg.norm(coord[..., :2] - center, axis=2)
    top = _mean_where(radius, z > low + 2 / 3 * size)
    bottom = _mean_where(radius, z < low + 1 / 3 * size)
    width, _ = _footprint(_spans(coord))
    standing = size[:, 0] > 0.5 * width
    words = np.select([standing & (top > 1.4 * bottom), standing & (bottom > 1.4 * top)], ["top", "bottom"], "")
    return [str(word) for word in words]


def _spans(coord: Float32[np.ndarray, "a n 3"]) -> Float32[np.ndarray, "a t"]:
    """Return the extent of the outline seen from above in 36 directions of half a turn."""
    direction = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
    spans = [np.ptp(coord[..., :2] @ direction[:, t], axis=1) for t in range(len(_ANGLES))]
    return np.stack(spans, axis=1)


def _footprint(spans: Float32[np.ndarray, "a t"]) -> tuple[Float32[np.ndarray, " a"], Float32[np.ndarray, " a"]]:
    across = np.roll(spans, len(_ANGLES) // 2, axis=1)
    best = (spans * across).argmin(1)
    rows = np.arange(len(spans))
    sides = spans[rows, best], across[rows, best]
    return np.maximum(*sides), np.minimum(*sides)


def _mean_where(value: Float32[np.ndarray, "a n"], mask: NDArray[np.bool_]) -> Float32[np.ndarray, " a"]:
    return (value * mask).sum(1) / np.maximum(mask.sum(1), 1).astype(np.float32)
