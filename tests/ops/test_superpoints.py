"""Super-points: surfaces stay apart, every point belongs to one, the algorithm is the published one."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pointloom.ops.superpoints import superpoints


def corner(rng: np.random.Generator, count: int = 400) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A floor and a wall that meet."""
    floor = np.column_stack([rng.random((count, 2)), np.zeros(count)])
    wall = np.column_stack([np.zeros(count), rng.random((count, 2))])
    normal = np.repeat(np.array([[0, 0, 1], [1, 0, 0]]), count, axis=0)
    return np.concatenate([floor, wall]).astype(np.float32), normal.astype(np.float32)


def slow_segments(
    coord: NDArray[np.float32], normal: NDArray[np.float32], *, scale: float, smallest: int, k: int
) -> NDArray[np.int64]:
    """Felzenszwalb and Huttenlocher's algorithm with sets of points."""
    near = cKDTree(coord).query(coord, k + 1)[1][:, 1:]
    edges = [(float(1 - abs(np.float32(normal[a] @ normal[b]))), a, b) for a in range(len(coord)) for b in near[a]]
    order = np.argsort([weight for weight, _, _ in edges], kind="stable")
    member = {i: {i} for i in range(len(coord))}
    inside = dict.fromkeys(range(len(coord)), 0.0)
    home = list(range(len(coord)))

    def join(a: int, b: int, weight: float) -> None:
        inside[a] = weight
        for node in member[b]:
            home[node] = a
        member[a] |= member.pop(b)

    for i in order:
        weight, a, b = edges[i][0], home[edges[i][1]], home[edges[i][2]]
        if a != b and weight <= min(inside[s] + scale / len(member[s]) for s in (a, b)):
            join(a, b, weight)
    for i in order:
        a, b = home[edges[i][1]], home[edges[i][2]]
        if a != b and min(len(member[a]), len(member[b])) < smallest:
            join(a, b, edges[i][0])
    return np.unique(home, return_inverse=True)[1]


def test_floor_and_wall_are_never_in_one_superpoint() -> None:
    coord, normal = corner(np.random.default_rng(0))
    found = superpoints(coord, normal)
    assert not set(found[:400]) & set(found[400:])
    assert np.bincount(found).min() >= 20
    assert sorted(set(found)) == list(range(found.max() + 1))


def test_segments_equal_the_algorithm_with_sets() -> None:
    rng = np.random.default_rng(1)
    coord = rng.random((150, 3)).astype(np.float32)
    normal = rng.normal(size=(150, 3))
    normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)
    for scale, smallest in ((0.3, 1), (1.0, 5), (5.0, 10)):
        mine = superpoints(coord, normal, scale=scale, smallest=smallest, k=6)
        other = slow_segments(coord, normal, scale=scale, smallest=smallest, k=6)
        assert len(np.unique(np.stack([mine, other]), axis=1).T) == len(set(mine)) == len(set(other))


def test_colour_parts_one_plane() -> None:
    coord, normal = corner(np.random.default_rng(2))
    coord, normal = coord[:400], normal[:400]
    color = np.where(coord[:, :1] < 0.5, 0.0, 1.0) * np.ones(3)
    found = superpoints(coord, normal, color)
    assert not set(found[coord[:, 0] < 0.5]) & set(found[coord[:, 0] >= 0.5])
    assert len(set(superpoints(coord, normal))) == 1


def test_points_that_are_not_finite_are_refused() -> None:
    coord, normal = corner(np.random.default_rng(3))
    coord[5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        superpoints(coord, normal)
