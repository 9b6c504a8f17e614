"""Closed triangle solids from which every synthetic object is put together.

Nearly all of them are *lofts*: closed outlines of equal length, stacked along a path and joined by triangles. Units are
metres, +Z is up, and triangles run counter-clockwise seen from outside, so normals point outwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Number = int | float  # the run-time checks of the tests do not take an int for a float
Point = tuple[Number, Number, Number]
Profile = Sequence[tuple[Number, Number]]
Axis = Literal["x", "y", "z"]

_PLANE_OF_AXIS: dict[Axis, tuple[int, int]] = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}


@dataclass(frozen=True, slots=True)
class Solid:
    """A closed surface: vertices (V, 3) in metres and faces (F, 3) that index them."""

    vertices: Array
    faces: NDArray[np.int32]

    def moved(self, x: Number = 0.0, y: Number = 0.0, z: Number = 0.0) -> Solid:
        """Return the solid shifted by (x, y, z) metres."""
        return Solid(self.vertices + np.array([x, y, z]), self.faces)

    def turned(self, axis: Axis, degrees: Number) -> Solid:
        """Return the solid turned about a coordinate axis through the origin (right-hand rule)."""
        u, v = _PLANE_OF_AXIS[axis]
        angle = np.deg2rad(degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        vertices = self.vertices.copy()
        vertices[:, u] = cos * self.vertices[:, u] - sin * self.vertices[:, v]
        vertices[:, v] = sin * self.vertices[:, u] + cos * self.vertices[:, v]
        return Solid(vertices, self.faces)

    def scaled(self, x: Number = 1.0, y: Number = 1.0, z: Number = 1.0) -> Solid:
        """Return the solid stretched by positive factors about the origin."""
        return Solid(self.vertices * np.array([x, y, z]), self.faces)


@lru_cache(maxsize=512)
def _loft_faces(num_rings: int, sides: int, closed: bool) -> NDArray[np.int32]:
    """Return a loft's triangles; ``closed`` joins the last ring to the first, else two centre vertices cap the ends."""
    last = num_rings if closed else num_rings - 1
    ring = np.arange(last)[:, None] * sides
    above = (np.arange(1, last + 1) % num_rings)[:, None] * sides
    here, after = np.arange(sides), (np.arange(sides) + 1) % sides
    lower = np.stack([ring + here, ring + after, above + after], axis=-1)
    upper = np.stack([ring + here, above + after, above + here], axis=-1)
    faces = [lower.reshape(-1, 3), upper.reshape(-1, 3)]
    if not closed:
        bottom, top, start = num_rings * sides, num_rings * sides + 1, (num_rings - 1) * sides
        faces.append(np.stack([np.full(sides, bottom), after, here], axis=-1))
        faces.append(np.stack([np.full(sides, top), start + here, start + after], axis=-1))
    result = np.concatenate(faces).astype(np.int32)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=64)
def _unit_circle(sides: int, phase: Number = 0.0) -> Array:
    """Return (sides, 2) points of the unit circle, counter-clockwise from ``phase`` (a fraction of one side)."""
    angle = (np.arange(sides) + phase) * (2 * np.pi / sides)
    result = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    result.setflags(write=False)
    return result


def loft(rings: Array, *, closed: bool = False) -> Solid:
    """Join outlines (R, S, 3) that run counter-clockwise seen from the end of the path.

    The ends are capped by a fan around the outline's mean, so outlines must be star-shaped about it. With ``closed``
    the last outline joins the first instead (a torus).
    """
    num_rings, sides, _ = rings.shape
    vertices = rings.reshape(-1, 3)
    if not closed:
        vertices = np.concatenate([vertices, rings[[0, -1]].mean(axis=1)])
    return Solid(vertices, _loft_faces(num_rings, sides, closed))


def box(x: Number, y: Number, z: Number, *, center: Point = (0.0, 0.0, 0.0), taper: Number = 1.0) -> Solid:
    """Return a box of the given size; ``taper`` scales its top face in x and y."""
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * (x, y)
    rings = np.empty((2, 4, 3))
    rings[0, :, :2], rings[1, :, :2] = square, square * taper
    rings[0, :, 2], rings[1, :, 2] = -z / 2, z / 2
    return loft(rings + np.array(center))


def lathe(profile: Profile, *, sides: int = 20) -> Solid:
    """Revolve (radius, height) pairs about the z axis; flat caps close both ends.

    List the outside from bottom to top, and for a hollow vessel go on down the inside: the wall then has a thickness.
    Radii must be positive.
    """
    points = np.asarray(profile, dtype=np.float64)
    rings = np.empty((len(points), sides, 3))
    rings[:, :, :2] = points[:, None, :1] * _unit_circle(sides)
    rings[:, :, 2] = points[:, 1:]
    return loft(rings)


def cylinder(radius: Number, height: Number, *, top_radius: Number | None = None, sides: int = 16) -> Solid:
    """Return an upright cylinder, or frustum, that stands on z = 0."""
    return lathe([(radius, 0.0), (radius if top_radius is None else top_radius, height)], sides=sides)


def shell(profile: Profile, *, wall: Number, sides: int = 20, open_bottom: bool = False) -> Solid:
    """Revolve (radius, height) pairs into a wall of that thickness, open at the top and, if asked, at the bottom."""
    outside = np.asarray(profile, dtype=np.float64)
    inside = outside[::-1] - [wall, 0.0]
    inside[:, 0] = np.maximum(inside[:, 0], 0.1 * outside[::-1, 0])
    rings = np.empty((2 * len(outside), sides, 3))
    if not open_bottom:
        inside[-1, 1] += wall
    both = np.concatenate([outside, inside])
    rings[:, :, :2] = both[:, None, :1] * _unit_circle(sides)
    rings[:, :, 2] = both[:, 1:]
    return loft(rings, closed=open_bottom)


def ellipsoid(x: Number, y: Number, z: Number, *, center: Point = (0.0, 0.0, 0.0), power: Number = 2.0) -> Solid:
    """Return a superellipsoid with semi-axes x, y, z: ``power`` 2 is an ellipsoid, 6 a cushion, 12 nearly a box."""
    exponent = 2.0 / power
    latitude = np.linspace(-0.46, 0.46, 9) * np.pi
    circle = _unit_circle(16, 0.5)
    outline = np.sign(circle) * np.abs(circle) ** exponent
    rings = np.empty((9, 16, 3))
    rings[:, :, :2] = (np.cos(latitude) ** exponent)[:, None, None] * outline
    rings[:, :, 2] = (np.sign(latitude) * np.abs(np.sin(latitude)) ** exponent)[:, None]
    return loft(rings * (x, y, z) + np.array(center))


def rod(start: Point, end: Point, radius: Number, end_radius: Number | None = None, *, sides: int = 8) -> Solid:
    """Return a straight bar between two points; ``sides`` 4 gives a square section whose half width is ``radius``."""
    return tube([start, end], [radius, radius if end_radius is None else end_radius], sides=sides)


def tube(path: Sequence[Point] | Array, radius: Number | Sequence[Number] | Array, *, sides: int = 8) -> Solid:
    """Sweep a regular polygon along a polyline (R, 3); ``radius`` is one number or one per point."""
    points = np.asarray(path, dtype=np.float64)
    side, up = _frames(points)
    phase = 0.5 if sides == 4 else 0.0
    circle = _unit_circle(sides, phase) * (np.sqrt(2.0) if sides == 4 else 1.0)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(points),))[:, None, None]
    offset = circle[None, :, :1] * side[:, None] + circle[None, :, 1:] * up[:, None]
    return loft(points[:, None] + radii * offset)


def ring(radius: Number, thickness: Number, *, sides: int = 24) -> Solid:
    """Return a torus about the z axis with tube radius ``thickness``, centred at the origin."""
    section = _unit_circle(8) * thickness + (radius, 0.0)
    circle = _unit_circle(sides)
    rings = np.empty((8, sides, 3))
    rings[:, :, :2] = section[:, None, :1] * circle
    rings[:, :, 2] = section[:, 1:]
    return loft(rings, closed=True)


def extrude(outline: Profile | Array, depth: Number) -> Solid:
    """Raise a counter-clockwise outline (S, 2) in the xz plane to a slab of the given depth, centred on y = 0."""
    points = np.asarray(outline, dtype=np.float64)
    rings = np.empty((2, len(points), 3))
    rings[:, :, 0], rings[:, :, 2] = points[:, 0], points[:, 1]
    rings[0, :, 1], rings[1, :, 1] = depth / 2, -depth / 2
    return loft(rings)


def sheet(grid: Array, thickness: Number) -> Solid:
    """Return a bent sheet: a grid of points (R, S, 3), thickened by half on either side along its normals."""
    across = np.gradient(grid, axis=1)
    along = np.gradient(grid, axis=0)
    normal = np.cross(along, across)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    front, back = grid + 0.5 * thickness * normal, grid - 0.5 * thickness * normal
    return loft(np.concatenate([back, front[:, ::-1]], axis=1))


def arc(start: Point, middle: Point, end: Point, *, num: int = 7) -> Array:
    """Return (num, 3) points of the quadratic Bezier curve that leaves start towards middle and arrives at end."""
    t = np.linspace(0.0, 1.0, num)[:, None]
    a, b, c = np.array(start), np.array(middle), np.array(end)
    curve: Array = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    return curve


def _frames(points: Array) -> tuple[Array, Array]:
    """Return two unit vectors (R, 3) each that span the planes across a polyline, carried along without twisting."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    first = tangent[0]
    helper = np.array([1.0, 0.0, 0.0]) if abs(first[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    side = np.empty_like(points)
    side[0] = helper - (helper @ first) * first
    side[0] /= np.linalg.norm(side[0])
    for i in range(1, len(points)):
        carried = side[i - 1] - (side[i - 1] @ tangent[i]) * tangent[i]
        side[i] = carried / np.linalg.norm(carried)
    up = np.cross(tangent, side)
    return side, up
