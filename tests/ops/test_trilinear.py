"""Tri-linear sampling of sparse voxels against torch's dense one."""

import torch
from torch.nn import functional as F

from pointloom.ops.trilinear import sample_voxels
from pointloom.ops.voxels import voxels_at


def half_empty() -> tuple:
    torch.manual_seed(1)
    cells = torch.cartesian_prod(*(torch.arange(6),) * 3)
    place = cells[torch.rand(len(cells)) < 0.5]
    voxels, _ = voxels_at(place, torch.tensor([len(place)]))
    return voxels, torch.randn(len(place), 3)


def test_equals_dense_sampling_where_empty_voxels_are_zero() -> None:
    voxels, feature = half_empty()
    grid = torch.zeros(1, 3, 6, 6, 6)
    grid[0][(slice(None), *voxels.coord.unbind(1))] = feature.t()
    position = torch.rand(50, 3) * 7 - 1
    where = ((position + 0.5) / 6 * 2 - 1).flip(-1).view(1, 1, 1, 50, 3)
    expected = F.grid_sample(grid, where, align_corners=False)[0, :, 0, 0].t()
    ours = sample_voxels(feature, voxels, position, torch.zeros(50, dtype=torch.long), normalize=False)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_normalised_weights_keep_a_constant_and_nothing_stays_nothing() -> None:
    voxels, feature = half_empty()
    position = torch.cat([voxels.coord.float() + 0.3, torch.tensor([[40.0, 2, 2]])])
    scene = torch.zeros(len(position), dtype=torch.long)
    ours = sample_voxels(torch.ones_like(feature), voxels, position, scene, normalize=True)
    torch.testing.assert_close(ours[:-1], torch.ones_like(ours[:-1]))
    assert (ours[-1] == 0).all()


def test_the_middle_of_a_voxel_has_its_feature_and_gradients_reach_it() -> None:
    voxels, feature = half_empty()
    feature.requires_grad_()
    ours = sample_voxels(feature, voxels, voxels.coord.float(), voxels.scene, normalize=True)
    torch.testing.assert_close(ours, feature)
    ours.sum().backward()
    assert feature.grad is not None
    torch.testing.assert_close(feature.grad, torch.ones_like(feature))
