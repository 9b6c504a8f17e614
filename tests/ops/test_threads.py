"""Parts of a batch on several threads give what one thread gives, for every kernel that is cut into parts."""

import multiprocessing
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pointloom.ops import threads
from pointloom.ops.interpolation import interpolate_features, weighted_rows
from pointloom.ops.linear_max import linear_max
from pointloom.ops.neighbor_sums import neighbor_rows, neighbor_sums
from pointloom.ops.neighbors import ball_query_ragged, knn_ragged
from pointloom.ops.norm_linear_max import norm_linear_max
from pointloom.ops.norm_relu import norm_relu
from pointloom.ops.sampling import farthest_point_sampling_ragged
from pointloom.ops.sparse_conv import neighbor_map, sparse_convolution
from pointloom.ops.voxels import voxelize

THREADS = 3


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_LEAST", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_the_parts_are_all_rows_once_and_in_order(tiny_parts: None, rows: int) -> None:
    torch.set_num_threads(THREADS)
    parts = threads.run_parts(lambda first, end: list(range(first, end)), rows, cost=10)
    assert len(parts) == min(rows, THREADS)
    assert [row for part in parts for row in part] == list(range(rows))


def test_little_work_is_not_cut() -> None:
    assert threads.run_parts(lambda first, end: (first, end), 100, cost=1) == [(0, 100)]


def test_what_parts_add_is_added_up(tiny_parts: None) -> None:
    torch.set_num_threads(THREADS)
    target = np.random.default_rng(0).integers(0, 5, 1000)
    total = np.ones(5)
    threads.add_parts(
        lambda first, end, own: np.add.at(own, target[first:end], 1.0), len(target), cost=1, totals=(total,)
    )
    np.testing.assert_array_equal(total, 1 + np.bincount(target))


def test_a_forked_process_has_threads_of_its_own(tiny_parts: None) -> None:
    torch.set_num_threads(THREADS)
    assert _sum_in_parts() == 45
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sum_in_parts).get(timeout=20) == 45


def _sum_in_parts() -> int:
    return sum(threads.run_parts(lambda first, end: sum(range(first, end)), 10, cost=1))


def test_an_error_in_a_part_is_raised(tiny_parts: None) -> None:
    torch.set_num_threads(THREADS)

    def fail(first: int, _: int) -> None:
        if first > 0:
            raise ValueError("a part failed")

    with pytest.raises(ValueError, match="a part failed"):
        threads.run_parts(fail, 10, cost=1)


def _ragged(draw: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(400, 3, generator=draw), torch.tensor([70, 75, 400])


def _knn(draw: torch.Generator) -> list[Tensor]:
    coord, offset = _ragged(draw)
    return [knn_ragged(coord, offset, coord, offset, 5)]


def _ball(draw: torch.Generator) -> list[Tensor]:
    coord, offset = _ragged(draw)
    return [ball_query_ragged(coord, offset, coord, offset, radius=0.3, num=8)]


def _farthest(draw: torch.Generator) -> list[Tensor]:
    coord, offset = _ragged(draw)
    return [farthest_point_sampling_ragged(coord, offset, torch.tensor([20, 5, 100]))]


def _interpolated(draw: torch.Generator) -> list[Tensor]:
    feature = torch.randn(3, 20, 6, generator=draw, requires_grad=True)
    centers = torch.rand(3, 20, 3, generator=draw)
    return _with_gradients(interpolate_features(torch.rand(3, 50, 3, generator=draw), centers, feature), feature)


def _spread(draw: torch.Generator) -> list[Tensor]:
    feature, weight = (torch.randn(shape, generator=draw, requires_grad=True) for shape in ((20, 6), (50, 3)))
    index = torch.randint(20, (50, 3), generator=draw)
    return _with_gradients(weighted_rows(feature, index, weight), feature, weight)


def _rows(draw: torch.Generator) -> list[Tensor]:
    shapes = (20, 8), (50, 4, 3), (8, 3)
    feature, place, weight = (torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)
    index = torch.randint(20, (50, 4), generator=draw)
    return _with_gradients(neighbor_rows(feature, index, place, weight), feature, place, weight)


def _sums(draw: torch.Generator) -> list[Tensor]:
    shapes = (20, 8), (50, 4, 3), (8, 3), (50, 4, 2)
    value, place, weight, share = (torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)
    index = torch.randint(20, (50, 4), generator=draw)
    return _with_gradients(neighbor_sums(value, index, place, weight, share), value, place, weight, share)


def _normed(draw: torch.Generator) -> list[Tensor]:
    x, patch = (torch.randn(shape, generator=draw, requires_grad=True) for shape in ((50, 4, 8), (50, 8)))
    norm = nn.BatchNorm1d(8)
    return [*_with_gradients(norm_relu(x, patch, norm), x, patch, *norm.parameters()), *norm.buffers()]


def _highest(draw: torch.Generator) -> list[Tensor]:
    x, weight = (torch.randn(shape, generator=draw, requires_grad=True) for shape in ((50, 4, 8), (6, 8)))
    return _with_gradients(linear_max(x, weight), x, weight)


def _normed_highest(draw: torch.Generator) -> list[Tensor]:
    shapes = (50, 4, 8), (50, 8), (6, 8)
    x, patch, weight = (torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes)
    norm = nn.BatchNorm1d(8)
    out = norm_linear_max(x, patch, norm, weight, kept=torch.arange(0, 50, 2))
    return _with_gradients(out, x, patch, weight, *norm.parameters())


def _convolved(draw: torch.Generator) -> list[Tensor]:
    voxels, _, _ = voxelize(torch.rand(400, 3, generator=draw), torch.tensor([400]), size=0.2)
    feature = torch.randn(len(voxels.key), 4, generator=draw, requires_grad=True)
    weight = torch.randn(5, 3, 3, 3, 4, generator=draw, requires_grad=True)
    return _with_gradients(sparse_convolution(feature, weight, neighbor_map(voxels, 3)), feature, weight)


def _with_gradients(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


EXACT = [_knn, _ball, _farthest]
SUMS = [_interpolated, _spread, _rows, _sums, _normed, _highest, _normed_highest, _convolved]


@pytest.mark.parametrize("operation", [*EXACT, *SUMS])
def test_threads_change_no_result(tiny_parts: None, operation: Callable[[torch.Generator], list[Tensor]]) -> None:
    results = []
    for number in (1, THREADS):
        torch.set_num_threads(number)
        results.append(operation(torch.Generator().manual_seed(0)))
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5 if operation in SUMS else 0)
