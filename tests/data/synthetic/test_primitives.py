"""Solids are closed, face outwards, and have the volume and size that geometry says."""

from collections.abc import Callable

import numpy as np
import pytest

from pointloom.data.synthetic import primitives
from pointloom.data.synthetic.primitives import Solid


def signed_volume(solid: Solid) -> float:
    """Sum the tetrahedra between the origin and every triangle; positive when normals point outwards."""
    a, b, c = (solid.vertices[solid.faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def wave(rows: int, columns: int, *, flipped: bool = False) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 2, rows))
    grid = np.stack([x, y, 0.2 * (x - 0.5) ** 2], axis=-1)
    return grid[::-1] if flipped else grid


SOLIDS: dict[str, Callable[[], Solid]] = {
    "box": lambda: primitives.box(1, 2, 3, center=(5, 0, -4)),
    "tapered box": lambda: primitives.box(1, 1, 1, taper=0.5),
    "lathe": lambda: primitives.lathe([(1, 0), (2, 1), (1, 3)]),
    "cylinder": lambda: primitives.cylinder(1, 2, top_radius=0.5).moved(3, 0, 0),
    "shell": lambda: primitives.shell([(1, 0), (1.2, 1)], wall=0.1),
    "open shell": lambda: primitives.shell([(1, 0), (1.2, 1)], wall=0.1, open_bottom=True),
    "ellipsoid": lambda: primitives.ellipsoid(1, 2, 3),
    "cushion": lambda: primitives.ellipsoid(1, 1, 0.2, power=7),
    "rod": lambda: primitives.rod((0, 0, 0), (1, 1, 1), 0.1),
    "rod along x": lambda: primitives.rod((1, 0, 0), (-1, 0, 0), 0.1, 0.2),
    "square rod": lambda: primitives.rod((0, 0, 1), (0, 0, 0), 0.5, sides=4),
    "tube": lambda: primitives.tube(primitives.arc((0, 0, 0), (1, 0, 1), (2, 0, 0)), 0.1),
    "ring": lambda: primitives.ring(1, 0.2),
    "extrude": lambda: primitives.extrude([(0, 0), (1, 0), (1, 1), (0, 1)], 0.5),
    "sheet": lambda: primitives.sheet(wave(4, 5), 0.1),
    "flipped sheet": lambda: primitives.sheet(wave(4, 5, flipped=True), 0.1),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_every_edge_is_shared_by_two_opposite_triangles(name: str) -> None:
    faces = SOLIDS[name]().faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist()
    directed = {tuple(edge) for edge in edges}
    assert len(directed) == len(edges)
    assert all((b, a) in directed for a, b in directed)


@pytest.mark.parametrize("name", SOLIDS)
def test_normals_point_outwards(name: str) -> None:
    assert signed_volume(SOLIDS[name]()) > 0


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (primitives.box(1, 2, 3), 6.0),
        (primitives.cylinder(1, 2, sides=64), 2 * np.pi),
        (primitives.cylinder(2, 3, top_radius=1, sides=64), np.pi * 3 * (4 + 2 + 1) / 3),
        (primitives.rod((0, 0, 0), (0, 3, 4), 0.5, sides=4), 5.0),
        (primitives.ring(1, 0.2, sides=64), 2 * np.pi**2 * 0.04),
        (primitives.extrude([(0, 0), (1, 0), (0, 1)], 0.5), 0.25),
        (primitives.ellipsoid(1, 2, 3), 8 * np.pi),
    ],
)
def test_volumes_agree_with_the_formulas(solid: Solid, volume: float) -> None:
    assert signed_volume(solid) == pytest.approx(volume, rel=0.12)


def test_turning_follows_the_right_hand_rule() -> None:
    point = Solid(np.array([[1.0, 0.0, 0.0]]), np.zeros((0, 3), np.int32))
    np.testing.assert_allclose(point.turned("z", 90).vertices, [[0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(point.turned("y", 90).vertices, [[0, 0, -1]], atol=1e-12)
    np.testing.assert_allclose(point.turned("x", 90).vertices, [[1, 0, 0]], atol=1e-12)


def test_turning_and_moving_keep_the_volume() -> None:
    solid = primitives.cylinder(1, 2)
    moved = solid.turned("x", 33).turned("y", -70).turned("z", 200).moved(3, -2, 7)
    assert signed_volume(moved) == pytest.approx(signed_volume(solid))
