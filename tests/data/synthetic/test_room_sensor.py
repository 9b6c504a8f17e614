"""The scanner: what it hits first agrees with plain ray casting, hidden surfaces leave no points, density falls."""

import numpy as np
import pytest

from pointloom.data.synthetic import Draw
from pointloom.data.synthetic.primitives import box
from pointloom.data.synthetic_rooms.recipes import furnished
from pointloom.data.synthetic_rooms.sensor import Scan, scan
from pointloom.data.synthetic_rooms.surfaces import FLOOR, Surfaces, surfaces
from pointloom.kernels.cube_maps import AXES, first_hits


def cast(corners: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return distances (R, F) along rays to triangles, infinite where they miss (Moeller and Trumbore)."""
    a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = np.cross(direction[:, None], e2[None])
    det = np.einsum("fc,rfc->rf", e1, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = origin - a
        u = np.einsum("fc,rfc->rf", t, p) / det
        q = np.cross(t, e1)
        v = np.einsum("rc,fc->rf", direction, q) / det
        distance = np.einsum("fc,fc->f", e2, q)[None] / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)
    return np.where(hit, distance, np.inf)


def box_triangles(size: float) -> np.ndarray:
    solid = box(size, size, size, center=(0, 0, 0.6))
    return solid.vertices[solid.faces]


def test_first_hits_are_those_of_plain_ray_casting() -> None:
    rng = np.random.default_rng(0)
    near = rng.uniform(-1, 1, (30, 1, 3)) + rng.uniform(-0.4, 0.4, (30, 3, 3))
    corners = np.concatenate([near, rng.uniform(-6, 6, (4, 3, 3))])  # many of them reach behind the camera
    camera, side = np.array([0.1, -0.2, 0.3]), 9
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1)
    rays = np.tan(((grid + rng.random((6, side, side, 2))) * (2 / side) - 1) * (np.pi / 4))
    depth, triangle = np.full((6, side, side), np.inf), np.full((6, side, side), -1, dtype=np.int32)
    first_hits(corners, camera, rays, depth, triangle)
    seen: list[float] = []
    for face in range(6):
        flat = rays[face].reshape(-1, 2)
        direction = flat[:, :1] * AXES[face, 0] + flat[:, 1:] * AXES[face, 1] + AXES[face, 2]
        distance = cast(corners, camera, direction)
        assert depth[face].ravel() == pytest.approx(distance.min(axis=1), rel=1e-9)
        found = np.where(np.isfinite(distance.min(axis=1)), distance.argmin(axis=1), -1)
        assert np.array_equal(triangle[face].ravel(), found)
        seen.append(float((found >= 0).mean()))
    assert 0 < min(seen) < 1


def scanned(surface: Surfaces | None = None, **options: float) -> tuple[Surfaces, Scan]:
    rng = np.random.default_rng(5)
    plan = furnished("office", Draw(rng), clutter=True)
    surface = surfaces(plan, ceiling=False) if surface is None else surface
    settings = {"num_points": 3000, "num_cameras": 2, "falloff": 1.0, "noise": 0.0} | options
    return surface, scan(plan, surface, rng=rng, **settings)


def test_every_point_is_seen_by_a_camera() -> None:
    surface, result = scanned()
    coord = result.coord[:150].astype(np.float64)
    free = np.zeros(len(coord), dtype=bool)
    for camera in result.cameras:
        distance = cast(surface.corners, camera, coord - camera)
        free |= distance.min(axis=1) > 1 - 1e-4  # nothing before the point, which is at 1
    assert free.all()


def test_enclosed_surfaces_leave_no_point() -> None:
    surface, _ = scanned()
    inner, outer = box_triangles(0.3), box_triangles(0.4)
    for shells, expected in (([inner], True), ([inner, outer], False)):
        corners = np.concatenate([surface.corners, *shells])
        added = np.repeat(np.arange(len(shells)) + 1000, [len(shell) for shell in shells])
        grey = np.full((len(corners), 3), 128, dtype=np.uint8)
        _, result = scanned(Surfaces(corners, grey, np.concatenate([surface.owner, added]).astype(np.int32)))
        assert (result.owner == 1000).any() == expected
        assert (result.owner == 1001).any() == (not expected)


def near_to_far(falloff: float) -> tuple[float, float]:
    """Return the ratio of densities on a floor 1.5 and 4 metres from under the camera, and that of the distances."""
    half = 8.0
    quad = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    corners = quad[[[0, 1, 2], [0, 2, 3]]]
    floor = Surfaces(corners, np.full((2, 3), 99, dtype=np.uint8), np.full(2, FLOOR, dtype=np.int32))
    _, result = scanned(floor, num_points=20000, falloff=falloff, num_cameras=1)
    away = np.linalg.norm(result.coord[:, :2] - result.cameras[0, :2], axis=1)
    counts, _ = np.histogram(away, bins=[1.3, 1.7, 3.8, 4.2])
    density = counts[0] / (1.7**2 - 1.3**2) / (counts[2] / (4.2**2 - 3.8**2))
    height = float(result.cameras[0, 2])
    return float(density), float(np.hypot(4.0, height) / np.hypot(1.5, height))


def test_density_falls_with_the_distance() -> None:
    density, farther = near_to_far(2.0)
    assert density == pytest.approx(farther**3, rel=0.1)  # power 2, and the floor is seen at an angle
    assert density > 1.3 * near_to_far(1.0)[0] > 1.69 * near_to_far(0.0)[0]


def test_noise_moves_points_along_their_rays_and_no_farther_than_three_deviations() -> None:
    _, clean = scanned(noise=0.0)
    _, noisy = scanned(noise=0.01)
    moved = np.linalg.norm(noisy.coord - clean.coord, axis=1)
    farthest = np.max([np.linalg.norm(clean.coord - camera, axis=1) for camera in clean.cameras], axis=0)
    assert (moved <= 0.03 * farthest + 1e-5).all()
    assert (moved > 1e-4).mean() > 0.9
    away = clean.coord[:, None] - clean.cameras[None]
    along = away / np.linalg.norm(away, axis=-1, keepdims=True)
    across = np.linalg.norm(np.cross(along, (noisy.coord - clean.coord)[:, None]), axis=-1).min(axis=1)
    assert across.max() < 1e-5
