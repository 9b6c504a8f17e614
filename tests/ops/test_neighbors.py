"""Neighbours, grouping, interpolation and pooling against brute force and the official results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pointloom.errors import BackendError
from pointloom.ops import choose_backend, gather_points, group_points, interpolate_features, knn, max_over_points

BACKENDS = ("torch", "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_equal_a_search_tree(backend: str) -> None:
    rng = np.random.default_rng(0)
    coord, query = rng.normal(size=(2, 300, 3)).astype(np.float32), rng.normal(size=(2, 20, 3)).astype(np.float32)
    index = knn(torch.from_numpy(query), torch.from_numpy(coord), 7, backend=backend)
    for b in range(2):
        assert np.array_equal(index[b].numpy(), cKDTree(coord[b]).query(query[b], 7)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_equal_the_official_ones(golden: Path, backend: str) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        coord = torch.from_numpy(ops["pts"])
        centers = gather_points(coord, torch.from_numpy(ops["fps_128"]).long())
        assert np.array_equal(knn(centers, coord, 16, backend=backend).numpy(), ops["knn16_idx"])


def test_too_many_neighbours_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot find 6 neighbours in clouds of 5"):
        knn(torch.zeros(1, 1, 3), torch.zeros(1, 5, 3), 6)
    with pytest.raises(ValueError, match="finite"):
        knn(torch.zeros(1, 1, 3), torch.full((1, 5, 3), torch.nan), 2, backend="numba")


def test_patches_are_centred_and_hold_their_own_centre_first() -> None:
    coord = torch.randn(2, 100, 3)
    groups = group_points(coord, 8, 5)
    assert torch.equal(groups.neighborhood[:, :, 0], torch.zeros(2, 8, 3))
    rebuilt = groups.neighborhood + groups.centers.unsqueeze(2)
    assert torch.allclose(rebuilt, gather_points(coord, groups.index))


def test_interpolation_equals_the_official_one(golden: Path) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        coord = torch.from_numpy(ops["pts"])
        centers = gather_points(coord, torch.from_numpy(ops["fps_128"]).long())
        out = interpolate_features(coord, centers, torch.from_numpy(ops["interp_feat"]))
        assert np.abs(out.numpy() - ops["interp_out"]).max() < 1e-4 * np.abs(ops["interp_out"]).max()


@pytest.mark.parametrize("tied", [False, True])
def test_maximum_has_the_values_and_gradients_of_amax(tied: bool) -> None:
    feature = torch.randn(3, 4, 5, dtype=torch.float64)
    if tied:
        feature[:, 1] = feature[:, 0]
    ours, reference = feature.clone().requires_grad_(), feature.clone().requires_grad_()
    weight = torch.randn(3, 5, dtype=torch.float64)
    (max_over_points(ours) * weight).sum().backward()
    (reference.amax(-2) * weight).sum().backward()
    assert torch.equal(max_over_points(ours), reference.amax(-2))
    assert ours.grad is not None
    assert torch.allclose(ours.grad, reference.grad)


def test_backend_is_explicit_and_unknown_ones_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert choose_backend(cpu) == "numba"
    monkeypatch.setenv("POINTLOOM_OPS_BACKEND", "torch")
    assert choose_backend(cpu) == "torch"
    assert choose_backend(cpu, "numba") == "numba"
    with pytest.raises(BackendError, match="known: torch, numba"):
        choose_backend(cpu, "cuda")
    with pytest.raises(BackendError, match="works on CPU tensors"):
        choose_backend(torch.device("cuda"), "numba")
