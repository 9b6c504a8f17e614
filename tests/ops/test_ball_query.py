"""Ball query against the official results, brute force and awkward clouds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.ops import ball_query, ball_query_ragged, gather_points

BACKENDS = ("torch", "numba")


def slow_ball(query: np.ndarray, coord: np.ndarray, radius: float, num: int) -> list[list[int]]:
    rows = []
    for center in query:
        delta = coord - center
        squared = delta[:, 0] ** 2 + delta[:, 1] ** 2 + delta[:, 2] ** 2
        hits = np.flatnonzero(squared < np.float32(radius) ** 2)[:num].tolist()
        rows.append(hits + [hits[0] if hits else 0] * (num - len(hits)))
    return rows


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_equal_the_official_ones(golden: Path, backend: str) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        coord = torch.from_numpy(ops["pts"])
        centers = gather_points(coord, torch.from_numpy(ops["fps_128"]).long())
        index = ball_query(centers, coord, radius=0.2, num=32, backend=backend)
        assert np.array_equal(index.numpy(), ops["ball_r0.2_ns32"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num", [1, 5, 300])
@pytest.mark.parametrize("num_points", [1, 63, 64, 65, 200])
def test_indices_equal_brute_force_also_for_more_than_there_are(backend: str, num: int, num_points: int) -> None:
    rng = np.random.default_rng(num_points)
    coord = rng.normal(size=(2, num_points, 3)).astype(np.float32)
    query = rng.normal(size=(2, 9, 3)).astype(np.float32)
    index = ball_query(torch.from_numpy(query), torch.from_numpy(coord), radius=0.8, num=num, backend=backend)
    assert index.tolist() == [slow_ball(q, c, 0.8, num) for q, c in zip(query, coord, strict=True)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_border_is_outside_and_an_empty_ball_has_index_zero(backend: str) -> None:
    coord = torch.tensor([[[5.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]]])
    query = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
    assert ball_query(query, coord, radius=1.0, num=2, backend=backend).tolist() == [[[2, 2], [0, 0]]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_clouds_equal_one_cloud_at_a_time(backend: str) -> None:
    sizes, query_sizes = [70, 1, 200], [9, 2, 4]
    coord, query = torch.randn(sum(sizes), 3), torch.randn(sum(query_sizes), 3)
    offset, query_offset = torch.tensor(sizes).cumsum(0), torch.tensor(query_sizes).cumsum(0)
    index = ball_query_ragged(query, query_offset, coord, offset, radius=0.9, num=6, backend=backend)
    first, expected = 0, []
    for own, cloud in zip(query.split(query_sizes), coord.split(sizes), strict=True):
        expected += [[first + i for i in row] for row in slow_ball(own.numpy(), cloud.numpy(), 0.9, 6)]
        first += len(cloud)
    assert index.tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_input_is_refused_with_a_reason(backend: str) -> None:
    cloud = torch.zeros(1, 5, 3)
    with pytest.raises(ValueError, match="radius above 0"):
        ball_query(cloud, cloud, radius=0.0, num=2, backend=backend)
    with pytest.raises(ValueError, match="at least 1 point"):
        ball_query(cloud, cloud, radius=1.0, num=0, backend=backend)
    with pytest.raises(ValueError, match="must be finite"):
        ball_query(cloud, torch.full((1, 5, 3), torch.inf), radius=1.0, num=2, backend=backend)
    with pytest.raises(ValueError, match=r"offsets of query must rise to its 5 rows .* got \[2, 4\]"):
        ball_query_ragged(
            cloud[0], torch.tensor([2, 4]), cloud[0], torch.tensor([2, 5]), radius=1.0, num=1, backend=backend
        )
