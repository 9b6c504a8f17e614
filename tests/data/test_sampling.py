from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pointloom.data.clouds import Cloud
from pointloom.data.materials import WHITE_MATERIAL
from pointloom.data.quarantine import RejectedError
from pointloom.data.sampling import estimate_normals, sample_cloud, sample_surface
from pointloom.data.surfaces import Surface


def make_surface(vertices: list[list[float]], faces: list[list[int]], **arrays: np.ndarray) -> Surface:
    num = len(faces)
    return Surface(
        vertices=np.array(vertices, dtype=np.float64),
        faces=np.array(faces, dtype=np.int64),
        face_material=np.zeros(num, dtype=np.int64),
        materials=(WHITE_MATERIAL,),
        uv=np.zeros((len(vertices), 2)),
        **arrays,
    )


def test_points_are_spread_in_proportion_to_area() -> None:
    random = np.random.default_rng(1)
    vertices = random.normal(size=(60, 3))
    faces = np.arange(60).reshape(20, 3)
    part = np.arange(20, dtype=np.uint8)
    surface = make_surface(vertices.tolist(), faces.tolist(), face_part=part)
    sample = sample_surface(surface, 20000, generator=random)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    assert sample.segment is not None
    counts = np.bincount(sample.segment, minlength=20)
    assert stats.chisquare(counts, area / area.sum() * 20000).pvalue > 0.001


def test_points_are_uniform_inside_a_triangle() -> None:
    surface = make_surface([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    coord = sample_surface(surface, 20000, generator=np.random.default_rng(2)).coord
    assert (coord[:, :2].sum(axis=1) <= 1 + 1e-12).all()
    # the four triangles between the midpoints have the same area
    x, y = coord[:, 0], coord[:, 1]
    cell = np.select([x > 0.5, y > 0.5, x + y < 0.5], [0, 1, 2], default=3)
    assert stats.chisquare(np.bincount(cell, minlength=4)).pvalue > 0.001


def test_faces_without_area_get_no_points() -> None:
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]]
    part = np.array([0, 1, 2], dtype=np.uint8)
    surface = make_surface(vertices, [[3, 3, 3], [0, 1, 2], [0, 0, 3]], face_part=part)
    sample = sample_surface(surface, 100, generator=np.random.default_rng(0))
    assert sample.segment is not None
    assert (sample.segment == 1).all()
    np.testing.assert_array_equal(sample.normal, np.tile([0, 0, 1], (100, 1)))


def test_a_surface_without_any_area_is_refused() -> None:
    surface = make_surface([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]])
    with pytest.raises(RejectedError, match="zero_extent: none of its 1 faces has an area"):
        sample_surface(surface, 10, generator=np.random.default_rng(0))


def test_the_same_generator_gives_the_same_points(tmp_path: Path) -> None:
    surface = make_surface([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    first, second = (sample_surface(surface, 50, generator=np.random.default_rng(7)).coord for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_large_clouds_are_thinned_without_repetition_and_small_ones_keep_every_point() -> None:
    coord = np.random.default_rng(0).normal(size=(100, 3))
    thinned = sample_cloud(Cloud(coord), 40, generator=np.random.default_rng(1))
    assert len(np.unique(thinned.coord, axis=0)) == 40
    repeated = sample_cloud(Cloud(coord), 250, generator=np.random.default_rng(1))
    assert len(repeated.coord) == 250
    assert len(np.unique(repeated.coord, axis=0)) == 100


def test_estimated_normals_of_a_sphere_point_outward() -> None:
    random = np.random.default_rng(3)
    sphere = random.normal(size=(3000, 3))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    normal = estimate_normals(sphere * 2 + 5, sphere[:200] * 2 + 5)
    cosine = np.einsum("ni,ni->n", normal, sphere[:200])
    assert cosine.min() > 0.9
    assert np.median(cosine) > 0.995


def test_normals_of_the_file_are_used_and_made_unit_length() -> None:
    cloud = Cloud(np.eye(3), normal=np.array([[0, 0, 2], [0, 3, 0], [0, 0, 0]], dtype=np.float32))
    sample = sample_cloud(cloud, 3, generator=np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(sample.normal, axis=1), 1)
