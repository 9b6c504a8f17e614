"""Parametric everyday objects with exact labels, so that everything runs without a download.

Object ``index`` of ``seed`` is the same on every machine and does not depend on any other object. Objects are in
metres, right-handed, +Z up and face -Y, apart from a small random turn about z.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pointloom.data.synthetic import household, leisure, lounges, seats, storage, tables, vehicles, vessels
from pointloom.data.synthetic.blueprint import Assembly, Blueprint, Builder
from pointloom.data.synthetic.captions import attributes, captions
from pointloom.data.synthetic.draw import Draw

__all__ = ["CATEGORIES", "Assembly", "Blueprint", "Builder", "Draw", "SyntheticObject", "generate_object"]

CATEGORIES: dict[str, Builder] = {
    "airplane": vehicles.airplane,
    "bed": lounges.bed,
    "bench": lounges.bench,
    "bookshelf": storage.bookshelf,
    "bottle": vessels.bottle,
    "bowl": vessels.bowl,
    "cabinet": storage.cabinet,
    "car": vehicles.car,
    "chair": seats.chair,
    "desk": tables.desk,
    "guitar": leisure.guitar,
    "lamp": household.lamp,
    "monitor": household.monitor,
    "mug": vessels.mug,
    "plant": household.plant,
    "sofa": lounges.sofa,
    "stool": seats.stool,
    "table": tables.table,
    "tent": leisure.tent,
    "vase": vessels.vase,
}

MAX_TURN = 10.0  # degrees about z, either way
STRETCH = 0.1  # each axis is stretched by up to this fraction
DECIMALS = 6  # of a metre; hides the last bits in which maths libraries differ


@dataclass(frozen=True)
class SyntheticObject:
    """One generated object.

    Attributes:
        uid: "synthetic-<category>-<seed>-<index>", unique for every (seed, index, category).
        category: One of ``CATEGORIES``.
        name: A short name such as "rocking chair".
        group: Objects with the same group belong on the same side of a split; here every object is its own group.
        vertices: Corner points (V, 3) in metres.
        faces: Triangles (F, 3) that index vertices, counter-clockwise seen from outside.
        face_color: RGB colour of every triangle (F, 3).
        face_part: Index of every triangle (F,) into ``part_names``.
        part_names: The category's parts, in an order that is the same for all its objects.
        attributes: Words such as "wooden", "red", "round", "four legs".
        captions: Different sentences; the last one does not name the category.
    """

    uid: str
    category: str
    name: str
    group: str
    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    face_color: NDArray[np.uint8]
    face_part: NDArray[np.uint8]
    part_names: tuple[str, ...]
    attributes: tuple[str, ...]
    captions: tuple[str, ...]


def generate_object(index: int, *, seed: int, category: str | None = None) -> SyntheticObject:
    """Make object ``index`` of the endless collection ``seed``.

    Args:
        index: Number of the object, from 0.
        seed: Which collection; different seeds share no object.
        category: One of ``CATEGORIES``; by default the categories take turns.

    Raises:
        ValueError: The category is unknown, or index or seed is negative.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"index and seed of a synthetic object must be 0 or more, got index={index}, seed={seed}")
    if category is None:
        category = list(CATEGORIES)[index % len(CATEGORIES)]
    if category not in CATEGORIES:
        raise ValueError(f"unknown synthetic category {category!r}; choose one of: {', '.join(CATEGORIES)}")
    draw = Draw(np.random.default_rng([seed, index, zlib.crc32(category.encode())]))
    plan = CATEGORIES[category](draw)
    uid = f"synthetic-{category}-{seed}-{index:06d}"
    return SyntheticObject(
        uid=uid,
        category=category,
        name=plan.name,
        group=uid,
        vertices=_posed(plan, draw),
        faces=plan.body.faces(),
        face_color=plan.body.face_colors(),
        face_part=plan.body.face_parts(),
        part_names=plan.body.part_names,
        attributes=attributes(plan),
        captions=captions(plan, draw),
    )


def _posed(plan: Blueprint, draw: Draw) -> NDArray[np.float32]:
    """Return the vertices (V, 3) after a random stretch of each axis and a small turn about z."""
    stretch = [1 + draw.between(-STRETCH, STRETCH) for _ in range(3)]
    angle = np.deg2rad(draw.between(-MAX_TURN, MAX_TURN))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    vertices: NDArray[np.float64] = (plan.body.vertices() * stretch) @ turn.T
    return np.round(vertices, DECIMALS).astype(np.float32)
