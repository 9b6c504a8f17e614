"""Voxels against a dictionary, colours against colorsys, crops against a k-d tree, turns against distances."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import convolve
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from pointloom.data.scene_transforms import (
    AUGMENTATIONS,
    Augmentation,
    ScenePoints,
    augment,
    elastic_distortion,
    fragments,
    grid_sample,
    random_block,
    rotation,
    shift_hue,
    sphere_crop,
    stretch_contrast,
    thin,
)


def points(num: int = 400) -> ScenePoints:
    rng = np.random.default_rng(num)
    normal = rng.normal(size=(num, 3))
    return ScenePoints(
        coord=(rng.random((num, 3)) * [4, 3, 2]).astype(np.float32),
        color=rng.random((num, 3), dtype=np.float32),
        normal=(normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        segment=np.arange(num),
        instance=np.arange(num),
    )


def voxels(coord: np.ndarray, size: float) -> dict[tuple[int, ...], list[int]]:
    """The slow way."""
    found: dict[tuple[int, ...], list[int]] = {}
    for i, cell in enumerate(np.floor(coord / np.float32(size)).astype(int).tolist()):
        found.setdefault(tuple(cell), []).append(i)
    return found


@pytest.mark.parametrize("seed", [None, 0])
def test_one_point_per_voxel_and_its_inverse(seed: int | None) -> None:
    coord = points().coord
    chosen, inverse = grid_sample(coord, 0.5, None if seed is None else np.random.default_rng(seed))
    members = list(voxels(coord, 0.5).values())
    assert len(chosen) == len(members)
    for voxel in members:
        (picked,) = set(voxel) & set(chosen.tolist())
        assert (chosen[inverse[voxel]] == picked).all()
        assert seed is not None or picked == voxel[0]


def test_every_point_of_a_voxel_is_chosen_alike() -> None:
    coord = np.zeros((5, 3), np.float32)
    rng = np.random.default_rng(0)
    counts = np.bincount([int(grid_sample(coord, 1.0, rng)[0][0]) for _ in range(1000)], minlength=5)
    assert counts.min() > 150


def test_labelled_points_go_before_the_others_of_their_voxel() -> None:
    coord = points().coord
    preferred = np.arange(len(coord)) % 40 == 0
    for rng in (None, np.random.default_rng(0)):
        chosen = set(grid_sample(coord, 0.5, rng, preferred=preferred)[0].tolist())
        for voxel in voxels(coord, 0.5).values():
            wanted = [i for i in voxel if preferred[i]]
            assert not wanted or chosen & set(wanted)


def test_fragments_cover_every_point_with_one_point_of_every_voxel() -> None:
    coord = points().coord
    members = voxels(coord, 0.5)
    parts = fragments(coord, 0.5)
    assert len(parts) == max(map(len, members.values()))
    assert set(np.concatenate(parts).tolist()) == set(range(len(coord)))
    where = {i: voxel for voxel, inside in members.items() for i in inside}
    for part in parts:
        assert sorted(where[i] for i in part.tolist()) == sorted(members)


def test_sphere_crop_is_that_of_a_tree() -> None:
    coord = points().coord
    expected = cKDTree(coord).query(coord[7], k=60)[1]
    np.testing.assert_array_equal(sphere_crop(coord, 60, coord[7]), np.sort(expected))
    np.testing.assert_array_equal(sphere_crop(coord, 1000, coord[7]), np.arange(len(coord)))


def test_a_random_block_is_an_upright_box_of_a_third_to_all_of_the_extent() -> None:
    coord = points(5000).coord
    rng = np.random.default_rng(0)
    for _ in range(20):
        inside = random_block(coord, rng)
        low, high = coord[inside, :2].min(0), coord[inside, :2].max(0)
        np.testing.assert_array_equal(inside, ((coord[:, :2] >= low) & (coord[:, :2] <= high)).all(1))
        assert (high - low <= np.ptp(coord[:, :2], axis=0)).all()
    sizes = [random_block(coord, rng).mean() for _ in range(200)]
    assert 0.02 < min(sizes) < max(sizes) <= 1


def test_thinning_keeps_few_enough_and_the_preferred_ones() -> None:
    coord = points(5000).coord
    preferred = np.zeros(5000, bool)
    preferred[[17, 4321]] = True
    kept = thin(coord, 900, preferred=preferred)
    assert 300 < len(kept) <= 900
    assert {17, 4321} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    assert len(thin(coord, 5000)) == 5000


def test_rotations_are_counter_clockwise() -> None:
    for axis in range(3):
        turned = rotation(axis, np.pi / 2) @ np.eye(3)[(axis + 1) % 3]
        np.testing.assert_allclose(turned, np.eye(3)[(axis + 2) % 3], atol=1e-12)


def test_turns_flips_and_scales_keep_the_shape_and_move_normals_along() -> None:
    given, rng = points(60), np.random.default_rng(0)
    how = Augmentation(rotate_degrees=180.0, tilt_degrees=3.0, tilt_p=1.0, scale=(0.9, 1.1), flip_p=0.5)
    for _ in range(10):
        found = augment(given, how, rng)
        factor = pdist(found.coord) / pdist(given.coord)
        assert 0.9 <= factor.min() <= factor.max() <= 1.1
        np.testing.assert_allclose(factor, factor[0], rtol=1e-4)
        motion = np.linalg.lstsq(given.coord, found.coord / factor[0], rcond=None)[0]
        np.testing.assert_allclose(given.normal @ motion, found.normal, atol=1e-4)
        assert abs(motion[2, 2]) > np.cos(np.deg2rad(3)) ** 2 - 1e-6
    np.testing.assert_array_equal(found.color, given.color)


def test_jitter_and_dropout_are_bounded() -> None:
    given, rng = points(), np.random.default_rng(0)
    moved = augment(given, Augmentation(jitter=0.01, jitter_clip=0.02), rng).coord - given.coord
    assert 0.019 < np.abs(moved).max() <= 0.0201
    assert 0.008 < moved.std() < 0.0105
    fewer = augment(given, Augmentation(dropout=0.2, dropout_p=1.0), rng)
    assert len(fewer.coord) == 320
    np.testing.assert_array_equal(fewer.coord, given.coord[fewer.segment])


def test_elastic_distortion_is_blurred_noise_between_grid_points() -> None:
    coord, granularity, magnitude = points(300).coord, 0.5, 1.6
    low = coord.min(0).astype(np.float64)
    shape = ((coord.max(0) - low) // granularity).astype(int) + 3
    axes = [np.linspace(x - granularity, x + granularity * (n - 2), n) for x, n in zip(low, shape, strict=True)]
    noise = np.random.default_rng(5).standard_normal((3, *shape), dtype=np.float32)
    moved = []
    for part in noise:
        for kernel in [(3, 1, 1), (1, 3, 1), (1, 1, 3)] * 2:
            part = convolve(part, np.full(kernel, 1 / 3), mode="constant", cval=0)
        moved.append(RegularGridInterpolator(axes, part)(coord))
    found = elastic_distortion(coord, granularity, magnitude, np.random.default_rng(5))
    np.testing.assert_allclose(found - coord, magnitude * np.stack(moved, axis=1), atol=2e-5)


def test_elastic_distortion_is_smooth_and_scales_with_its_magnitude() -> None:
    coord = points(2000).coord
    moved = elastic_distortion(coord, 0.4, 1.6, np.random.default_rng(0)) - coord
    half = elastic_distortion(coord, 0.4, 0.8, np.random.default_rng(0)) - coord
    np.testing.assert_allclose(moved, 2 * half, atol=1e-5)
    assert 0.02 < np.abs(moved).mean() < 0.6
    near = coord + np.float32(0.001)
    shift = elastic_distortion(np.concatenate([coord, near]), 0.4, 1.6, np.random.default_rng(0))
    assert np.abs((shift[2000:] - shift[:2000]) - 0.001).max() < 0.02


@pytest.mark.parametrize(("hue", "saturation"), [(0.0, 1.0), (0.3, 1.0), (-0.45, 0.8), (0.1, 1.2)])
def test_hue_and_saturation_are_those_of_colorsys(hue: float, saturation: float) -> None:
    color = np.concatenate([points(50).color, [[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1], [1, 0, 0], [1, 1, 0]]])
    expected = []
    for rgb in color.tolist():
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        expected.append(colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1), v))
    np.testing.assert_allclose(shift_hue(color.astype(np.float32), hue, saturation), expected, atol=2e-6)


def test_contrast_stretches_every_channel() -> None:
    color = np.array([[0.2, 0.5, 0.1], [0.4, 0.5, 0.9]], np.float32)
    np.testing.assert_allclose(stretch_contrast(color, 1.0), [[0, 0, 0], [1, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(stretch_contrast(color, 0.5), [[0.1, 0.25, 0.05], [0.7, 0.25, 0.95]], atol=1e-6)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_named_augmentations_follow_the_generator_and_keep_ranges(name: str) -> None:
    given = points()
    found = [augment(given, AUGMENTATIONS[name], np.random.default_rng(seed)) for seed in (3, 3, 4)]
    for a, b in zip(vars(found[0]).values(), vars(found[1]).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (name == "none") == np.array_equal(found[0].coord, found[2].coord)
    assert found[0].coord.dtype == found[0].color.dtype == found[0].normal.dtype == np.float32
    assert 0 <= found[0].color.min() <= found[0].color.max() <= 1


def test_color_shift_moves_all_points_alike() -> None:
    given = replace(points(), color=np.full((400, 3), 0.5, np.float32))
    color = augment(given, Augmentation(color_shift=0.05, color_shift_p=1.0), np.random.default_rng(0)).color
    assert (color == color[0]).all()
    assert 0 < np.abs(color[0] - 0.5).max() <= 0.05


def test_scene_around_the_origin_can_be_thinned_to_one_point() -> None:
    cube = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float32)
    assert len(thin(cube, 8)) == 8
    assert thin(cube, 7).tolist() == [0]
