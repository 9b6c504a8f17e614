"""Voxels against NumPy: which are occupied, what joins one level up, what is found again."""

import numpy as np
import pytest
import torch

from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.ops.voxels import voxelize, voxels_at

SIZES = (70, 1, 130)
OFFSET = torch.tensor(SIZES).cumsum(0)
SCENE = np.repeat(np.arange(3), SIZES)


def points(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-0.7, 1.3, (sum(SIZES), 3)).astype(np.float32))


def grid_places(coord: torch.Tensor, size: float) -> np.ndarray:
    cell = np.floor(coord.numpy() / np.float32(size)).astype(np.int64)
    scenes = np.split(cell, OFFSET[:-1].numpy())
    return np.concatenate([own - own.min(0) for own in scenes])


def with_scene(places: np.ndarray, scene: np.ndarray) -> np.ndarray:
    return np.concatenate([scene[:, None], places], axis=1)


def test_voxels_are_those_with_points_and_the_first_point_stands_for_each() -> None:
    coord = points()
    voxels, first, inverse = voxelize(coord, OFFSET, 0.4)
    expected = with_scene(grid_places(coord, 0.4), SCENE)
    occupied = np.unique(expected, axis=0)
    ours = with_scene(voxels.coord.numpy(), voxels.scene.numpy())
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, occupied.tolist()))
    assert (ours[inverse.numpy()] == expected).all()
    earliest = [int(np.flatnonzero(inverse.numpy() == v)[0]) for v in range(len(ours))]
    assert first.tolist() == earliest
    assert voxels.offset.tolist() == np.cumsum(np.bincount(occupied[:, 0])).tolist()
    inside = (coord - voxels.centers[inverse]).abs().max()
    assert inside <= 0.2 + 1e-5


def test_parents_are_places_halved() -> None:
    voxels, _, _ = voxelize(points(), OFFSET, 0.1)
    parents, parent = voxels.parents()
    halved = with_scene(voxels.coord.numpy() // 2, voxels.scene.numpy())
    ours = with_scene(parents.coord.numpy(), parents.scene.numpy())
    assert (ours[parent.numpy()] == halved).all()
    assert len(ours) == len(np.unique(halved, axis=0))
    assert (parents.key.diff() > 0).all()
    assert parents.size == pytest.approx(0.2)
    assert parents.offset.tolist() == np.cumsum(np.bincount(ours[:, 0])).tolist()


def test_places_are_found_again_and_empty_ones_are_not() -> None:
    voxels, _, _ = voxelize(points(), OFFSET, 0.4)
    assert voxels.find(voxels.coord, voxels.scene).tolist() == list(range(len(voxels.key)))
    outside = torch.tensor([[-1, 0, 0], [0, 70000, 0], [50, 50, 50]])
    assert voxels.find(outside, torch.tensor([0, 1, 2])).tolist() == [-1, -1, -1]


def test_order_of_given_places_is_returned_and_repeats_are_refused() -> None:
    place = torch.tensor([[3, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]])
    voxels, order = voxels_at(place, torch.tensor([3, 4]))
    assert torch.equal(voxels.coord, place[order])
    with pytest.raises(ValueError, match="occurs twice"):
        voxels_at(place, torch.tensor([4]))


@pytest.mark.parametrize(
    ("place", "offset", "message"),
    [
        ([[-1, 0, 0]], [1], "must be in 0..65535"),
        ([[65536, 0, 0]], [1], "must be in 0..65535"),
        ([[0, 0, 0]], [1, 1], "leave no scene empty"),
        ([[0, 0, 0]], [2], "must rise to the 1 rows"),
    ],
)
def test_bad_places_and_offsets_are_refused(place: list[list[int]], offset: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voxels_at(torch.tensor(place), torch.tensor(offset))


def test_a_subset_has_the_ancestors_of_what_it_keeps() -> None:
    voxels, _, _ = voxelize(points(), OFFSET, 0.1)
    levels = VoxelLevels(voxels, depth=4)
    coarsest = torch.rand(len(levels.voxels[-1].key)) < 0.5
    coarsest[levels.voxels[-1].offset - 1] = True
    kept = levels.spread_down(coarsest)
    part = levels.subset(kept[0])
    for level in range(4):
        assert torch.equal(part.voxels[level].key, levels.voxels[level].key[kept[level]])
    with pytest.raises(ValueError, match="every scene must keep a voxel"):
        levels.subset(voxels.scene != 1)


def test_means_are_those_of_the_smallest_voxels_inside() -> None:
    voxels, _, _ = voxelize(points(), OFFSET, 0.1)
    levels = VoxelLevels(voxels, depth=3)
    value = torch.randn(len(voxels.key), 2)
    coarse = with_scene(voxels.coord.numpy() // 4, voxels.scene.numpy())
    own = with_scene(levels.voxels[2].coord.numpy(), levels.voxels[2].scene.numpy())
    for row, place in enumerate(own):
        inside = (coarse == place).all(1)
        np.testing.assert_allclose(levels.means(value)[2][row], value.numpy()[inside].mean(0), atol=1e-6)
