"""Clouds of different sizes: ranks, corners, repeated neighbours, interpolation and Chamfer distance, one by one."""

import numpy as np
import pytest
import torch

from pointloom.ops import chamfer_distance_ragged, knn_ragged, nearest_weights, weighted_rows
from pointloom.ops.segments import clouds_of, ranks_within, to_corner

SIZES = (5, 2, 9)
OFFSET = torch.tensor(SIZES).cumsum(0)


def test_ranks_and_corners_are_those_of_every_cloud_alone() -> None:
    score, coord = torch.rand(16).round(decimals=1), torch.randn(16, 3)
    ranks = ranks_within(score, clouds_of(OFFSET, 16)).split(SIZES)
    for own, rank in zip(score.split(SIZES), ranks, strict=True):
        order = sorted(range(len(own)), key=lambda i: (-own[i].item(), i))
        assert [order.index(i) for i in range(len(own))] == rank.tolist()
    moved = to_corner(coord, OFFSET).split(SIZES)
    for cloud, own in zip(coord.split(SIZES), moved, strict=True):
        torch.testing.assert_close(own, cloud - cloud.amin(0))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_small_clouds_go_round_their_points(backend: str) -> None:
    coord = torch.randn(16, 3)
    index = knn_ragged(coord, OFFSET, coord, OFFSET, 4, repeat=True, backend=backend)
    assert torch.equal(index[5:7], torch.tensor([[5, 6, 5, 6], [6, 5, 6, 5]]))
    others = torch.cdist(coord[7:], coord[7:]).argsort(1)[:, :4] + 7
    assert torch.equal(index[7:], others)
    with pytest.raises(ValueError, match="smallest cloud has 2 points"):
        knn_ragged(coord, OFFSET, coord, OFFSET, 4, backend=backend)


@pytest.mark.parametrize(("power", "backend"), [(1, "numba"), (2, "numba"), (1, "torch")])
def test_interpolation_equals_sums_over_the_nearest_of_the_own_cloud(power: int, backend: str) -> None:
    query, coord, feature = torch.randn(6, 3), torch.randn(16, 3), torch.randn(16, 4, requires_grad=True)
    queries = torch.tensor([2, 4, 6])
    index, weight = nearest_weights(query, queries, coord, OFFSET, power=power, backend=backend)  # type: ignore[arg-type]
    found = weighted_rows(feature, index, weight, backend=backend)
    for q in range(6):
        low, high = (0, *OFFSET.tolist())[q // 2], OFFSET[q // 2]
        distance = np.linalg.norm(coord[low:high].numpy() - query[q].numpy(), axis=1)
        near = np.argsort(distance)[:3]
        share = 1 / (distance[near] ** power + 1e-8)
        expected = (share / share.sum()) @ feature[low:high].detach().numpy()[near]
        np.testing.assert_allclose(found[q].detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    found.sum().backward()
    assert feature.grad is not None
    torch.testing.assert_close(feature.grad.sum(), torch.tensor(24.0))


@pytest.mark.parametrize("norm", [1, 2])
def test_chamfer_distance_of_every_pair_equals_brute_force_with_gradient(norm: int) -> None:
    pred, target = torch.randn(9, 3, requires_grad=True), torch.randn(16, 3)
    ends = torch.tensor([4, 5, 9])
    found = chamfer_distance_ragged(pred, ends, target, OFFSET, norm=norm)
    expected = []
    for own, other in zip(pred.split((4, 1, 4)), target.split(SIZES), strict=True):
        distance = (own[:, None] - other).norm(dim=-1) ** norm
        both = distance.amin(1).mean() + distance.amin(0).mean()
        expected.append(both if norm == 2 else both / 2)
    torch.testing.assert_close(found, torch.stack(expected))
    (ours,) = torch.autograd.grad(found.sum(), pred, retain_graph=True)
    (plain,) = torch.autograd.grad(torch.stack(expected).sum(), pred)
    torch.testing.assert_close(ours, plain)


def test_other_norms_are_refused() -> None:
    coord = torch.randn(16, 3)
    with pytest.raises(ValueError, match="norm 1 or 2, got 3"):
        chamfer_distance_ragged(coord, OFFSET, coord, OFFSET, norm=3)
