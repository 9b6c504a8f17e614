"""What a builder of a category hands over: a solid assembled from named parts, and the words that describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.synthetic.draw import Color, Draw, Finish
from pointloom.data.synthetic.primitives import Array, Solid


class Assembly:
    """Collects coloured solids under part names; the order of the names is fixed per category."""

    def __init__(self, *part_names: str) -> None:
        self.part_names = part_names
        self._solids: list[Solid] = []
        self._parts: list[int] = []
        self._colors: list[Color] = []

    def add(self, part: str, color: Color | Finish, *solids: Solid) -> None:
        """Add solids to a part.

        Raises:
            ValueError: The part is not one of the assembly's names.
        """
        if part not in self.part_names:
            raise ValueError(f"part {part!r} is not one of {list(self.part_names)}; name it when the Assembly is made")
        for solid in solids:
            self._solids.append(solid)
            self._parts.append(self.part_names.index(part))
            self._colors.append(color.rgb if isinstance(color, Finish) else color)

    def vertices(self) -> Array:
        """Return the vertices (V, 3) of all solids, in metres."""
        return np.concatenate([solid.vertices for solid in self._solids])

    def faces(self) -> NDArray[np.int32]:
        """Return the triangles (F, 3) of all solids."""
        starts = np.cumsum([0] + [len(solid.vertices) for solid in self._solids[:-1]])
        return np.concatenate([s.faces + start for s, start in zip(self._solids, starts, strict=True)]).astype(np.int32)

    def face_parts(self) -> NDArray[np.uint8]:
        """Return each triangle's index (F,) into ``part_names``."""
        return np.repeat(np.array(self._parts, dtype=np.uint8), self._face_counts())

    def face_colors(self) -> NDArray[np.uint8]:
        """Return each triangle's RGB colour (F, 3)."""
        return np.repeat(np.array(self._colors, dtype=np.uint8), self._face_counts(), axis=0)

    def _face_counts(self) -> list[int]:
        return [len(solid.faces) for solid in self._solids]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One object before it is posed.

    Attributes:
        name: A short name with the style in it, such as "rocking chair".
        hypernym: What a person could call it without the category word, such as "seat for one person".
        body: The assembled solids.
        finish: Main material and colour.
        looks: Adjectives of its shape ("tall", "round").
        features: Noun phrases that follow "with" ("four legs", "a slatted back"); free of the category word.
    """

    name: str
    hypernym: str
    body: Assembly
    finish: Finish
    looks: tuple[str, ...]
    features: tuple[str, ...]


Builder = Callable[[Draw], Blueprint]
