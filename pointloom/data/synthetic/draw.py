"""Random decisions of one object: numbers, choices, colours and materials, all from one generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pointloom.data.synthetic.primitives import Number

T = TypeVar("T")
Color = tuple[int, int, int]

PAINTS: dict[str, Color] = {
    "red": (196, 40, 36),
    "orange": (232, 126, 34),
    "yellow": (238, 200, 50),
    "green": (64, 140, 66),
    "turquoise": (60, 170, 165),
    "blue": (45, 85, 170),
    "purple": (116, 66, 150),
    "pink": (226, 130, 160),
    "white": (238, 238, 234),
    "grey": (140, 142, 146),
    "black": (38, 38, 42),
    "beige": (214, 196, 164),
}
WOODS: dict[str, Color] = {
    "light brown": (196, 152, 98),
    "brown": (142, 94, 54),
    "dark brown": (84, 54, 34),
    "white": (236, 232, 224),
    "black": (48, 42, 40),
}
METALS: dict[str, Color] = {
    "silver": (190, 192, 196),
    "grey": (120, 122, 126),
    "black": (44, 44, 48),
    "golden": (198, 160, 78),
}
CLAYS: dict[str, Color] = {
    "terracotta": (184, 100, 66),
    **{n: PAINTS[n] for n in ("white", "beige", "blue", "green", "black")},
}
GLASSES: dict[str, Color] = {
    "clear": (210, 226, 230),
    "green": (60, 110, 70),
    "brown": (110, 66, 32),
    "blue": (90, 130, 190),
}
LEATHERS: dict[str, Color] = {
    "brown": (112, 66, 38),
    "black": (40, 38, 38),
    "beige": (206, 186, 152),
    "red": (140, 38, 34),
}

MATERIALS: dict[str, tuple[str, dict[str, Color]]] = {
    "wood": ("wooden", WOODS),
    "metal": ("metal", METALS),
    "plastic": ("plastic", PAINTS),
    "fabric": ("fabric", PAINTS),
    "leather": ("leather", LEATHERS),
    "glass": ("glass", GLASSES),
    "ceramic": ("ceramic", CLAYS),
    "painted metal": ("painted", PAINTS),
}


@dataclass(frozen=True, slots=True)
class Finish:
    """What a part is made of: material noun ("wood"), adjective ("wooden"), colour word and its RGB value."""

    material: str
    adjective: str
    color: str
    rgb: Color


class Draw:
    """Draws one object's decisions; only ``Generator.random`` is used, whose stream numpy keeps stable."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def between(self, low: Number, high: Number) -> float:
        """Return a uniform number in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return low + int(float(self._rng.random()) * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(self._rng.random()) < probability

    def choose(self, options: Sequence[T], *weights: Number) -> T:
        """Return one option, uniformly or with the given relative weights (one per option)."""
        if not weights:
            return options[int(float(self._rng.random()) * len(options))]
        rest = float(self._rng.random()) * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            rest -= weight
            if rest < 0:
                return option
        return options[-1]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in a random order."""
        keys = self._rng.random(len(options))
        return [options[i] for i in np.argsort(keys, kind="stable")]

    def finish(self, *materials: str) -> Finish:
        """Return one of the given materials in one of its colours."""
        material = self.choose(materials)
        adjective, colors = MATERIALS[material]
        color = self.choose(list(colors))
        return Finish(material.split()[-1], adjective, color, self.shade(colors[color], spread=0.12))

    def shade(self, rgb: Color, *, spread: float = 0.2) -> Color:
        """Return the colour, lighter or darker by at most ``spread`` and a little shifted in hue."""
        light = 1 + self.between(-spread, spread)
        red, green, blue = (min(255, max(0, int(c * light + self.between(-8, 8)))) for c in rgb)
        return red, green, blue
