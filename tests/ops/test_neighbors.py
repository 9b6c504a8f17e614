"""Neighbours, grouping and pooling against brute force and the official results."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pointloom.errors import BackendError
from pointloom.ops import choose_backend, gather_points, group_points, knn, knn_ragged, max_over_points

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


def exact_knn(query: np.ndarray, coord: np.ndarray, k: int) -> np.ndarray:
    delta = coord[None] - query[:, None]
    squared = delta[..., 0] ** 2 + delta[..., 1] ** 2 + delta[..., 2] ** 2
    return np.argsort(squared, axis=1, kind="stable")[:, :k]


def awkward_clouds(num_points: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(num_points)
    line = np.zeros((num_points, 3))
    line[:, 1] = rng.permutation(num_points)
    grid = rng.integers(0, 5, (num_points, 3))
    clouds = {
        "same": np.full((num_points, 3), 2.5),
        "line": line,
        "grid": grid,
        "far": 1e4 + rng.random((num_points, 3)),
    }
    return {name: cloud.astype(np.float32) for name, cloud in clouds.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_points", [1, 2, 64, 65, 500, 5000])
@pytest.mark.parametrize("kind", ["same", "line", "grid", "far"])
def test_ties_go_to_the_lowest_index_in_awkward_clouds(backend: str, num_points: int, kind: str) -> None:
    coord = awkward_clouds(num_points)[kind]
    query = np.concatenate([coord[:30], coord[-1:] + np.float32(0.25)])
    for k in {1, min(3, num_points), min(20, num_points)}:
        index = knn(torch.from_numpy(query)[None], torch.from_numpy(coord)[None], k, backend=backend)
        assert np.array_equal(index[0].numpy(), exact_knn(query, coord, k)), k


def test_backends_agree_on_a_scene_of_several_tree_levels() -> None:
    coord = torch.rand(1, 30_000, 3) * torch.tensor([6.0, 5.0, 0.01])
    query = coord[:, ::100]
    assert torch.equal(knn(query, coord, 12, backend="numba"), knn(query, coord, 12, backend="torch"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_neighbours_equal_one_cloud_at_a_time(backend: str) -> None:
    sizes, query_sizes = [70, 4, 200], [9, 2, 4]
    coord, query = torch.randn(sum(sizes), 3), torch.randn(sum(query_sizes), 3)
    offset, query_offset = torch.tensor(sizes).cumsum(0), torch.tensor(query_sizes).cumsum(0)
    index = knn_ragged(query, query_offset, coord, offset, 4, backend=backend)
    first, expected = 0, []
    for own, cloud in zip(query.split(query_sizes), coord.split(sizes), strict=True):
        expected.append(first + exact_knn(own.numpy(), cloud.numpy(), 4))
        first += len(cloud)
    assert np.array_equal(index.numpy(), np.concatenate(expected))


def test_ragged_clouds_that_do_not_fit_are_refused() -> None:
    coord, offset = torch.zeros(6, 3), torch.tensor([2, 6])
    with pytest.raises(ValueError, match="smallest cloud has 2 points"):
        knn_ragged(coord, offset, coord, offset, 3)
    with pytest.raises(ValueError, match=r"leave no cloud empty, got \[6, 6\]"):
        knn_ragged(coord, offset, coord, torch.tensor([6, 6]), 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_is_refused_by_every_backend(backend: str) -> None:
    good, bad = torch.zeros(1, 5, 3), torch.full((1, 5, 3), torch.nan)
    with pytest.raises(ValueError, match="must be finite"):
        knn(bad, good, 2, backend=backend)
    with pytest.raises(ValueError, match="must be finite"):
        knn(good, bad, 2, backend=backend)


def test_patches_are_centred_and_hold_their_own_centre_first() -> None:
    coord = torch.randn(2, 100, 3)
    groups = group_points(coord, 8, 5)
    assert torch.equal(groups.neighborhood[:, :, 0], torch.zeros(2, 8, 3))
    rebuilt = groups.neighborhood + groups.centers.unsqueeze(2)
    assert torch.allclose(rebuilt, gather_points(coord, groups.index))


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
