"""Farthest point sampling against the official results, a plain loop and awkward clouds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.ops import farthest_point_sampling, farthest_point_sampling_ragged, fps_order

BACKENDS = ("torch", "numba")


def slow_fps(coord: np.ndarray, num: int, start: int = 0, skip: float = 0.0) -> list[int]:
    distance = np.full(len(coord), np.inf, dtype=np.float32)
    if skip > 0:
        distance[coord[:, 0] ** 2 + coord[:, 1] ** 2 + coord[:, 2] ** 2 <= np.float32(skip)] = -1
    chosen = [start]
    while len(chosen) < num:
        delta = coord - coord[chosen[-1]]
        distance = np.minimum(distance, delta[:, 0] ** 2 + delta[:, 1] ** 2 + delta[:, 2] ** 2)
        chosen.append(int(distance.argmax()))
    return chosen


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_equal_the_official_ones(golden: Path, backend: str) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        for cloud, key, skip in (
            ("pts", "fps_128", 0.0),
            ("pts_near_origin", "fps_no_skip_128", 0.0),
            ("pts_near_origin", "fps_skip_origin_128", 1e-3),
        ):
            chosen = farthest_point_sampling(torch.from_numpy(ops[cloud]), 128, skip_near_origin=skip, backend=backend)
            assert np.array_equal(chosen.numpy(), ops[key]), key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("start", [0, 7])
def test_indices_equal_a_plain_loop(backend: str, start: int) -> None:
    coord = np.random.default_rng(0).normal(size=(3, 200, 3)).astype(np.float32)
    chosen = farthest_point_sampling(torch.from_numpy(coord), 50, start=start, backend=backend)
    assert [row.tolist() for row in chosen] == [slow_fps(cloud, 50, start) for cloud in coord]


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_clouds_do_not_break_it(backend: str) -> None:
    same = torch.ones(1, 5, 3)
    assert farthest_point_sampling(same, 5, backend=backend)[0, 0] == 0
    line = torch.zeros(1, 4, 3)
    line[0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert farthest_point_sampling(line, 2, backend=backend).tolist() == [[0, 3]]
    assert farthest_point_sampling(torch.zeros(2, 1, 3), 1, backend=backend).tolist() == [[0], [0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["line", "grid", "same", "near origin"])
@pytest.mark.parametrize("num_points", [2, 64, 65, 3000, 9000])
def test_ties_and_skipped_points_follow_the_plain_loop(backend: str, kind: str, num_points: int) -> None:
    rng = np.random.default_rng(num_points)
    line = np.stack([rng.permutation(num_points), np.zeros(num_points), np.zeros(num_points)], axis=1)
    clouds = {"line": line, "grid": rng.integers(0, 4, (num_points, 3)), "same": np.ones((num_points, 3))}
    coord = clouds.get(kind, 0.02 * rng.normal(size=(num_points, 3))).astype(np.float32)
    skip = 1e-3 if kind == "near origin" else 0.0
    num = min(100, num_points)
    chosen = farthest_point_sampling(
        torch.from_numpy(coord)[None], num, start=1, skip_near_origin=skip, backend=backend
    )
    assert chosen[0].tolist() == slow_fps(coord, num, 1, skip)


def official_fps(coord: np.ndarray, num: int, skip: float) -> list[int]:
    """The CUDA kernel of pointnet2_ops, thread by thread and comparison by comparison."""
    threads = min(512, 2 ** int(np.log(len(coord)) / np.log(2)))
    distance, chosen = np.full(len(coord), 1e10, dtype=np.float32), [0]
    near = (coord**2).sum(1) <= np.float32(skip)
    while len(chosen) < num:
        distance = np.where(near, distance, np.minimum(distance, ((coord - coord[chosen[-1]]) ** 2).sum(1)))
        best, index = np.full(threads, -1.0), np.zeros(threads, dtype=int)
        for k in np.flatnonzero(~near):
            if distance[k] > best[k % threads]:
                best[k % threads], index[k % threads] = distance[k], k
        half = threads // 2
        while half:
            wins = best[half : 2 * half] > best[:half]
            index[:half] = np.where(wins, index[half : 2 * half], index[:half])
            best[:half] = np.maximum(best[:half], best[half : 2 * half])
            half //= 2
        chosen.append(int(index[0]))
    return chosen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_points", [1, 2, 7, 60, 600, 1500])
@pytest.mark.parametrize("skip", [0.0, 0.25])
def test_official_ties_are_those_of_the_cuda_kernel(backend: str, num_points: int, skip: float) -> None:
    """Points of a small grid, so that several are equally far at every step and whole rounds are ties."""
    coord = np.random.default_rng(num_points).integers(-1, 2, (num_points, 3)).astype(np.float32) / 2
    num, points = min(12, num_points), torch.from_numpy(coord)
    expected = official_fps(coord, num, skip or -1.0)
    found = farthest_point_sampling(points[None], num, ties="official", skip_near_origin=skip, backend=backend)
    assert found[0].tolist() == expected
    ends = torch.tensor([3, 3 + num_points])
    both = farthest_point_sampling_ragged(
        torch.cat([torch.eye(3), points]), ends, torch.tensor([1, num]), ties="official", skip_near_origin=skip,
        backend=backend,
    )  # fmt: skip
    assert both.tolist() == [0, *(3 + index for index in expected)]
    if num_points > 100:
        assert expected != slow_fps(coord, num, 0, skip)


def test_ties_without_a_rule_are_refused() -> None:
    cloud = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match="official ties begin at index 0, as the official kernel does, got start 2"):
        farthest_point_sampling(cloud, 2, start=2, ties="official")
    with pytest.raises(ValueError, match="begin at index 0"):
        farthest_point_sampling_ragged(cloud[0], torch.tensor([5]), torch.tensor([2]), start=1, ties="official")


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_clouds_equal_one_cloud_at_a_time(backend: str) -> None:
    sizes, num = [70, 3, 200], [9, 3, 50]
    coord = np.random.default_rng(0).normal(size=(sum(sizes), 3)).astype(np.float32)
    offset = torch.tensor(sizes).cumsum(0)
    chosen = farthest_point_sampling_ragged(
        torch.from_numpy(coord), offset, torch.tensor(num), start=2, backend=backend
    )
    expected, first = [], 0
    for size, n in zip(sizes, num, strict=True):
        expected += [first + i for i in slow_fps(coord[first : first + size], n, 2)]
        first += size
    assert chosen.tolist() == expected


def test_ragged_clouds_with_too_few_points_are_refused() -> None:
    coord, offset = torch.zeros(6, 3), torch.tensor([2, 6])
    with pytest.raises(ValueError, match="cannot choose 3 points from cloud 0 of 2"):
        farthest_point_sampling_ragged(coord, offset, torch.tensor([3, 1]))
    with pytest.raises(ValueError, match="start index 2 is outside of cloud 0 of 2 points"):
        farthest_point_sampling_ragged(coord, offset, torch.tensor([1, 1]), start=2)
    with pytest.raises(ValueError, match="offsets of coord must rise to its 6 rows"):
        farthest_point_sampling_ragged(coord, torch.tensor([2, 7]), torch.tensor([1, 1]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_input_is_refused_with_a_reason(backend: str) -> None:
    with pytest.raises(ValueError, match="cannot choose 6 points from clouds of 5"):
        farthest_point_sampling(torch.zeros(1, 5, 3), 6, backend=backend)
    with pytest.raises(ValueError, match="must be finite"):
        farthest_point_sampling(torch.full((1, 5, 3), torch.nan), 2, backend=backend)
    with pytest.raises(ValueError, match="start index 9"):
        farthest_point_sampling(torch.zeros(1, 5, 3), 2, start=9, backend=backend)


@pytest.mark.parametrize("num_points", [1, 2, 63, 64, 65, 1000, 4200])
def test_full_order_equals_a_plain_loop(num_points: int) -> None:
    coord = np.random.default_rng(num_points).normal(size=(num_points, 3)).astype(np.float32)
    assert fps_order(coord).tolist() == slow_fps(coord, num_points)


def test_full_order_of_repeated_points_is_a_permutation_with_distinct_points_first() -> None:
    distinct = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    coord = np.concatenate([distinct, distinct[::-1]])
    order = fps_order(coord)
    assert sorted(order.tolist()) == list(range(80))
    assert len(np.unique(coord[order[:40]], axis=0)) == 40
