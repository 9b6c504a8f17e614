"""What operations do with clouds and numbers that are not as usual, the same with every backend."""

from collections.abc import Callable, Iterator

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from pointloom import ops

BACKENDS = ("torch", "numba")
OFFSET, QUERY_OFFSET = torch.tensor([40, 41, 50, 130]), torch.tensor([3, 5, 6, 12])

Operation = Callable[[Tensor, Tensor, str], Tensor]

DENSE: dict[str, Operation] = {
    "farthest points": lambda _, c, b: ops.farthest_point_sampling(c, c.shape[1], start=c.shape[1] - 1, backend=b),
    "neighbours": lambda q, c, b: ops.knn(q, c, min(c.shape[1], 5), backend=b),
    "ball": lambda q, c, b: ops.ball_query(q, c, radius=0.5, num=9, backend=b),
    "interpolation": lambda q, c, b: ops.interpolate_features(q, c, c, backend=b),
}
RAGGED: dict[str, Operation] = {
    "farthest points, ragged": lambda _, c, b: ops.farthest_point_sampling_ragged(
        c, OFFSET, torch.tensor([9, 1, 9, 20]), backend=b
    ),
    "neighbours, ragged": lambda q, c, b: ops.knn_ragged(q, QUERY_OFFSET, c, OFFSET, 7, repeat=True, backend=b),
    "ball, ragged": lambda q, c, b: ops.ball_query_ragged(q, QUERY_OFFSET, c, OFFSET, radius=0.5, num=9, backend=b),
    "interpolation, ragged": lambda q, c, b: ops.weighted_rows(
        c, *ops.nearest_weights(q, QUERY_OFFSET, c, OFFSET, backend=b), backend=b
    ),
}


@pytest.fixture
def _unchecked_shapes() -> Iterator[None]:
    """As outside of tests, where nothing checks annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def clouds(kind: str, num_points: int) -> Tensor:
    rng = np.random.default_rng(num_points)
    line = rng.permutation(num_points)[:, None] * np.array([[0.1, 0.2, -0.1]])
    some = {
        "line": line,
        "plane": rng.integers(0, 3, (num_points, 3)) * [1, 1, 0] * 0.25,
        "same": np.full((num_points, 3), 0.3),
        "pairs": rng.normal(size=(num_points, 3))[np.arange(num_points) // 2],
        "far and huge": 1e17 * rng.normal(size=(num_points, 3)),
        "tiny": 1e-30 * rng.normal(size=(num_points, 3)),
    }
    return torch.from_numpy(np.stack([some[kind], some[kind][::-1]]).astype(np.float32))


@pytest.mark.parametrize("name", list(DENSE))
@pytest.mark.parametrize("kind", ["line", "plane", "same", "pairs", "far and huge", "tiny"])
@pytest.mark.parametrize("num_points", [1, 2, 65])
def test_backends_agree_on_degenerate_clouds(name: str, kind: str, num_points: int) -> None:
    coord = clouds(kind, num_points)
    query = torch.cat([coord[:, :9], coord[:, -1:] + 0.1], dim=1)
    first, second = (DENSE[name](query, coord, backend) for backend in BACKENDS)
    assert first.isfinite().all()
    if first.dtype == torch.long:
        assert torch.equal(first, second)
    else:
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def by_kind(coord: Tensor) -> dict[str, Tensor]:
    """The same numbers in other forms; half precision represents all of them."""
    wide = torch.zeros(*coord.shape[:-1], 7)
    wide[..., 1:7:2] = coord
    return {
        "half": coord.half(),
        "bfloat16": coord.bfloat16(),
        "double": coord.double(),
        "strided": wide[..., 1:7:2],
        "transposed": coord.mT.contiguous().mT,
        "with gradient": coord.clone().requires_grad_(),
    }


@pytest.mark.parametrize("form", ["half", "bfloat16", "double", "strided", "transposed", "with gradient"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*DENSE, *RAGGED])
def test_results_do_not_depend_on_the_form_of_the_input(name: str, backend: str, form: str) -> None:
    """Coordinates are multiples of 1/8 up to 4, and some of them coincide."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((12, 3), (130, 3)) if name in RAGGED else ((2, 12, 3), (2, 65, 3))
    query, coord = (torch.randint(-32, 33, shape, generator=draw) / 8 for shape in shapes)
    query[..., :3, :] = coord[..., :3, :]
    operation = (DENSE | RAGGED)[name]
    expected = operation(query, coord, backend)
    found = operation(by_kind(query)[form], by_kind(coord)[form], backend)
    if expected.dtype == torch.long:
        assert torch.equal(found, expected)
    else:
        assert found.dtype == (torch.float64 if form == "double" else torch.float32)
        torch.testing.assert_close(found.float(), expected)


@pytest.mark.parametrize("form", ["half", "bfloat16", "double", "strided", "transposed"])
def test_distances_do_not_depend_on_the_form_of_the_input(form: str) -> None:
    draw = torch.Generator().manual_seed(0)
    pred, target = (torch.randint(-32, 33, (2, 6, 3), generator=draw) / 8 for _ in range(2))
    for distance in (ops.chamfer_distance, ops.earth_movers_distance):
        found = distance(by_kind(pred)[form], by_kind(target)[form])
        assert found.dtype == (torch.float64 if form == "double" else torch.float32)
        torch.testing.assert_close(found.float(), distance(pred, target))
    ends = torch.tensor([2, 6])
    ragged = [by_kind(each[0])[form] for each in (pred, target)]
    found = ops.chamfer_distance_ragged(ragged[0], ends, ragged[1], ends)
    torch.testing.assert_close(found.float(), ops.chamfer_distance_ragged(pred[0], ends, target[0], ends))


@pytest.mark.parametrize("norm", [1, 2])
def test_gradients_of_distances_equal_numerical_ones(norm: int) -> None:
    pred, target = (torch.randn(2, 5, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    ends = torch.tensor([2, 5])
    assert torch.autograd.gradcheck(lambda a, b: ops.chamfer_distance(a, b, norm=norm), (pred, target))
    assert torch.autograd.gradcheck(
        lambda a, b: ops.chamfer_distance_ragged(a[0], ends, b[0], ends, norm=norm), (pred, target)
    )
    assert torch.autograd.gradcheck(ops.earth_movers_distance, (pred, target))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_sums_of_rows_equal_numerical_ones(backend: str) -> None:
    feature, weight = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((4, 3), (6, 2)))
    index = torch.randint(4, (6, 2))
    assert torch.autograd.gradcheck(lambda f, w: ops.weighted_rows(f, index, w, backend=backend), (feature, weight))
    assert torch.autograd.gradcheck(lambda f: ops.gather_points(f[None], index.flatten()[None]), (feature,))
    assert torch.autograd.gradcheck(lambda f: ops.max_over_points(f[None]), (feature,))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1.1e18])
@pytest.mark.parametrize("name", [*DENSE, *RAGGED])
def test_coordinates_without_distances_are_refused(name: str, bad: float, backend: str) -> None:
    shapes = ((12, 3), (130, 3)) if name in RAGGED else ((2, 12, 3), (2, 65, 3))
    query, coord = (torch.randn(shape) for shape in shapes)
    coord[..., 64, 1] = bad
    with pytest.raises(ValueError, match=r"must be finite and at most 1e\+18"):
        (DENSE | RAGGED)[name](query, coord, backend)


def test_an_order_of_points_without_distances_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite and at most"):
        ops.fps_order(np.array([[0.0, 0.0, 0.0], [1e300, 0.0, 0.0]]))


@pytest.mark.usefixtures("_unchecked_shapes")
@pytest.mark.parametrize("backend", BACKENDS)
def test_clouds_that_do_not_fit_are_refused_before_a_kernel_reads_beyond_them(backend: str) -> None:
    two, three, flat = torch.randn(2, 9, 3), torch.randn(3, 9, 3), torch.randn(9, 3)
    with pytest.raises(ValueError, match=r"b the same, got \(3, 9, 3\) and \(2, 9, 3\)"):
        ops.knn(three, two, 2, backend=backend)
    with pytest.raises(ValueError, match=r"b the same, got \(2, 9, 3\) and \(3, 9, 3\)"):
        ops.ball_query(two, three, radius=1.0, num=2, backend=backend)
    with pytest.raises(ValueError, match=r"expected clouds of shape \(b, n, 3\)"):
        ops.farthest_point_sampling(flat, 2, backend=backend)
    with pytest.raises(ValueError, match="ties go to the lowest or the official index, got 'first'"):
        ops.farthest_point_sampling(two, 2, ties="first", backend=backend)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not belong together"):
        ops.interpolate_features(two, two, two[:, :5], backend=backend)
    with pytest.raises(ValueError, match="a partner of its own"):
        ops.earth_movers_distance(two, two[:, :5])
    ends = torch.tensor([9])
    for search in (ops.knn_ragged, ops.ball_query_ragged):
        wanted = {"k": 1} if search is ops.knn_ragged else {"radius": 1.0, "num": 1}
        with pytest.raises(ValueError, match="queries of 2 clouds cannot look into 1 clouds"):
            search(flat, torch.tensor([4, 9]), flat, ends, backend=backend, **wanted)  # type: ignore[operator]
    with pytest.raises(ValueError, match="each of 1 clouds, got 2 numbers"):
        ops.farthest_point_sampling_ragged(flat, ends, torch.tensor([1, 1]), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_clouds_are_refused_and_no_queries_are_answered(backend: str) -> None:
    some, none = torch.randn(2, 4, 3), torch.randn(2, 0, 3)
    with pytest.raises(ValueError, match="cannot choose 1 points from clouds of 0"):
        ops.farthest_point_sampling(none, 1, backend=backend)
    with pytest.raises(ValueError, match="cannot find 1 neighbours in clouds of 0"):
        ops.knn(some, none, 1, backend=backend)
    with pytest.raises(ValueError, match="clouds of 0 points"):
        ops.ball_query(some, none, radius=1.0, num=1, backend=backend)
    with pytest.raises(ValueError, match="in clouds of 0 points"):
        ops.interpolate_features(some, none, none, backend=backend)
    assert ops.knn(none, some, 2, backend=backend).shape == (2, 0, 2)
    assert ops.ball_query(none, some, radius=1.0, num=2, backend=backend).shape == (2, 0, 2)
    assert ops.interpolate_features(none, some, some, backend=backend).shape == (2, 0, 3)
    assert ops.farthest_point_sampling(some[:0], 2, backend=backend).shape == (0, 2)


@pytest.mark.parametrize("row", [-1, 5])
def test_rows_that_are_not_there_are_refused(row: int) -> None:
    feature, index = torch.randn(5, 4), torch.tensor([[0, row]])
    place, weight, share = torch.randn(1, 2, 3), torch.randn(4, 3), torch.rand(1, 2, 2)
    for call in (
        lambda: ops.weighted_rows(feature, index, torch.ones(1, 2), backend="numba"),
        lambda: ops.neighbor_rows(feature, index, place, weight, backend="numba"),
        lambda: ops.neighbor_sums(feature, index, place, weight, share, backend="numba"),
    ):
        with pytest.raises(IndexError, match=f"of 5 rows must be 0 to 4, got .*{row}"):
            call()
