"""Estimated normals: those of a plane and of a ball."""

import torch

from pointloom.ops.normals import estimate_normals


def test_normals_of_a_tilted_plane_are_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(300, 2, generator=generator)
    coord = torch.stack([flat[:, 0], flat[:, 1], 0.5 * flat[:, 0]], dim=1)
    expected = torch.tensor([-0.5, 0.0, 1.0]) / 1.25**0.5
    torch.testing.assert_close(estimate_normals(coord), expected.expand(300, 3), atol=1e-3, rtol=0)


def test_normals_of_a_ball_point_along_its_radius() -> None:
    radius = torch.nn.functional.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    cosine = (estimate_normals(radius) * radius).sum(1).abs()
    assert float(cosine.median()) > 0.99


def test_few_points_have_normals_too() -> None:
    assert estimate_normals(torch.tensor([[0.0, 0, 0], [1, 0, 0]])).shape == (2, 3)
