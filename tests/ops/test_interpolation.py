"""Interpolation from centres to points against the official results, brute force and numerical gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.ops import gather_points, interpolate_features, knn

BACKENDS = ("torch", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_features_and_neighbours_equal_the_official_ones(golden: Path, backend: str) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        coord = torch.from_numpy(ops["pts"])
        centers = gather_points(coord, torch.from_numpy(ops["fps_128"]).long())
        out = interpolate_features(coord, centers, torch.from_numpy(ops["interp_feat"]), backend=backend)
        assert np.abs(out.numpy() - ops["interp_out"]).max() < 1e-4 * np.abs(ops["interp_out"]).max()
        assert np.array_equal(knn(coord, centers, 3, backend=backend).numpy(), ops["three_nn_idx"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_point_on_a_centre_has_its_feature_and_a_lone_centre_spreads_everywhere(backend: str) -> None:
    centers, feature = torch.randn(2, 7, 3), torch.randn(2, 7, 4)
    assert torch.allclose(interpolate_features(centers, centers, feature, backend=backend), feature, atol=1e-4)
    alone = interpolate_features(torch.randn(2, 5, 3), centers[:, :1], feature[:, :1], backend=backend)
    assert torch.allclose(alone, feature[:, :1].expand(-1, 5, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_features_and_coordinates_equal_numerical_ones(backend: str) -> None:
    query, centers = torch.randn(2, 5, 3, dtype=torch.double), torch.randn(2, 6, 3, dtype=torch.double)
    feature = torch.randn(2, 6, 4, dtype=torch.double)
    inputs = [tensor.requires_grad_() for tensor in (query, centers, feature)]
    assert torch.autograd.gradcheck(lambda *args: interpolate_features(*args, backend=backend), inputs)


def test_half_precision_features_are_summed_in_single_precision() -> None:
    query, centers, feature = torch.randn(1, 50, 3), torch.randn(1, 9, 3), torch.randn(1, 9, 4).bfloat16()
    feature.requires_grad_()
    out = interpolate_features(query, centers, feature)
    out.sum().backward()
    expected = interpolate_features(query, centers, feature.detach().float(), backend="torch")
    assert out.dtype == torch.float32
    assert torch.allclose(out, expected, atol=1e-5)
    assert feature.grad is not None
    assert feature.grad.dtype == torch.bfloat16
