"""The backend on pointnet2_ops: a stand-in of the package's interface records how it is called and answers."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from pointloom import ops
from pointloom.errors import BackendError
from pointloom.kernels import pointnet2 as kernels
from pointloom.ops import backend as backends

CPU = torch.device("cpu")


class StandIn(ModuleType):
    """The package's functions as its CUDA code defines them, written with loops; all tensors must be as it asks."""

    def __init__(self) -> None:
        super().__init__("pointnet2_ops.pointnet2_utils")
        self.calls: list[str] = []

    def _take(self, name: str, *tensors: Tensor) -> None:
        self.calls.append(name)
        for tensor in tensors:
            assert tensor.is_contiguous()
            assert tensor.dtype in {torch.float32, torch.int32}

    def furthest_point_sample(self, xyz: Tensor, npoint: int) -> Tensor:
        self._take("fps", xyz)
        chosen = torch.zeros(len(xyz), npoint, dtype=torch.int32)
        for cloud, points in enumerate(xyz):
            least = torch.full((len(points),), 1e10)
            for i in range(1, npoint):
                least = least.minimum((points - points[chosen[cloud, i - 1]]).square().sum(-1))
                allowed = torch.where(points.square().sum(-1) <= 1e-3, -1.0, least)
                chosen[cloud, i] = allowed.argmax()
        return chosen

    def three_nn(self, unknown: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        self._take("three_nn", unknown, known)
        found = (unknown[:, :, None] - known[:, None]).square().sum(-1).topk(3, largest=False)
        return found.values.sqrt(), found.indices.int()

    def ball_query(self, radius: float, nsample: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
        self._take("ball", xyz, new_xyz)
        index = torch.zeros(*new_xyz.shape[:2], nsample, dtype=torch.int32)
        for cloud, queries in enumerate(new_xyz):
            for place, query in enumerate(queries):
                inside = ((xyz[cloud] - query).square().sum(-1) < radius * radius).nonzero().flatten()[:nsample]
                if len(inside):
                    index[cloud, place] = inside[0]
                    index[cloud, place, : len(inside)] = inside
        return index

    def grouping_operation(self, features: Tensor, idx: Tensor) -> Tensor:
        self._take("group", features, idx)
        flat = idx.long().flatten(1)[:, None].expand(-1, features.shape[1], -1)
        return features.gather(2, flat).unflatten(2, idx.shape[1:])


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in installed as the package, and allowed to work on the CPU."""
    parent, utils = ModuleType("pointnet2_ops"), StandIn()
    parent.pointnet2_utils = utils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pointnet2_ops", parent)
    monkeypatch.setitem(sys.modules, "pointnet2_ops.pointnet2_utils", utils)
    monkeypatch.setattr(backends, "_check_pointnet2", lambda _: None)
    return utils


def test_dense_operations_call_the_package_and_give_what_the_reference_gives(package: StandIn) -> None:
    coord, query = torch.randn(2, 60, 3), torch.randn(2, 7, 3)
    coord[:, 5:20] *= 0.01  # near the origin: never chosen
    calls: dict[str, Any] = {
        "fps": lambda b: ops.farthest_point_sampling(coord, 9, skip_near_origin=1e-3, backend=b),
        "three_nn": lambda b: ops.knn(query, coord, 3, backend=b),
        "ball": lambda b: ops.ball_query(query, coord, radius=0.7, num=5, backend=b),
    }
    for name, call in calls.items():
        assert torch.equal(call("pointnet2"), call("torch")), name
    assert package.calls == list(calls)


def test_interpolation_and_grouping_go_through_it_with_gradients(
    package: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, centers = torch.randn(2, 9, 3), torch.randn(2, 6, 3)
    feature, index = torch.randn(2, 6, 4, requires_grad=True), torch.randint(6, (2, 3, 5))
    weight = torch.randn(2, 3, 5, 4)
    expected = ops.interpolate_features(query, centers, feature, backend="torch")
    gradient = torch.autograd.grad((ops.gather_points(feature, index) * weight).sum(), feature)[0]
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "pointnet2")
    assert torch.allclose(ops.interpolate_features(query, centers, feature), expected, atol=1e-6)
    assert package.calls[0] == "three_nn"
    package.calls.clear()
    own = torch.autograd.grad((ops.gather_points(feature, index) * weight).sum(), feature)[0]
    assert package.calls == ["group"]
    assert torch.allclose(own, gradient, atol=1e-6)


def test_what_the_package_cannot_do_is_done_with_torch(package: StandIn) -> None:
    coord, query = torch.randn(2, 40, 3), torch.randn(2, 4, 3)
    offset = torch.tensor([30, 80])
    ragged, asked = coord.view(80, 3), query.view(8, 3)
    calls: dict[str, Any] = {
        "other start": lambda b: ops.farthest_point_sampling(coord, 5, start=2, skip_near_origin=1e-3, backend=b),
        "no rule near the origin": lambda b: ops.farthest_point_sampling(coord, 5, backend=b),
        "more neighbours": lambda b: ops.knn(query, coord, 4, backend=b),
        "ragged": lambda b: ops.knn_ragged(asked, torch.tensor([3, 8]), ragged, offset, 3, backend=b),
        "ragged samples": lambda b: ops.farthest_point_sampling_ragged(ragged, offset, offset // 10, backend=b),
    }
    for name, call in calls.items():
        assert torch.equal(call("pointnet2"), call("torch")), name
    assert package.calls == []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package on Python's path; returns the module that has its functions, still empty."""
    utils = tmp_path / "pointnet2_ops" / "pointnet2_utils.py"
    utils.parent.mkdir()
    (utils.parent / "__init__.py").touch()
    utils.touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield utils
    for name in ("pointnet2_ops", "pointnet2_ops.pointnet2_utils"):
        sys.modules.pop(name, None)


def test_an_installed_package_is_found_loaded_and_called_as_its_functions_want(installed: Path) -> None:
    """The functions of the package are ``apply`` of autograd functions: they take no arguments by name."""
    installed.write_text("""
import torch
class Samples(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xyz, npoint):
        return torch.arange(npoint, dtype=torch.int32).expand(len(xyz), -1)
class Three(torch.autograd.Function):
    @staticmethod
    def forward(ctx, unknown, known):
        found = torch.cdist(unknown, known).topk(3, largest=False)
        return found.values, found.indices.int()
class Ball(torch.autograd.Function):
    @staticmethod
    def forward(ctx, radius, nsample, xyz, new_xyz):
        return torch.full((*new_xyz.shape[:2], nsample), int(radius), dtype=torch.int32)
class Group(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, idx):
        return torch.stack([feature[:, index.long()] for feature, index in zip(features, idx)])
furthest_point_sample, three_nn = Samples.apply, Three.apply
ball_query, grouping_operation = Ball.apply, Group.apply
""")
    assert ops.choose_backend(torch.device("cuda"), "pointnet2") == "pointnet2"
    coord, query = torch.randn(2, 9, 3), torch.randn(2, 4, 3)
    index = torch.randint(9, (2, 4, 5))
    assert kernels.farthest_points(coord, 3).tolist() == [[0, 1, 2]] * 2
    assert torch.equal(kernels.three_nearest(query, coord), ops.knn(query, coord, 3))
    assert kernels.in_ball(query, coord, radius=7.0, num=2).tolist() == [[[7, 7]] * 4] * 2
    assert torch.equal(kernels.gather_rows(coord, index), ops.gather_points(coord, index))


def test_a_package_that_does_not_load_is_an_error_that_says_why(installed: Path) -> None:
    installed.write_text("raise RuntimeError('Unknown CUDA arch (3.7) or GPU not supported')")
    with pytest.raises(BackendError, match=r"cannot be loaded \(RuntimeError: Unknown CUDA arch .* build it anew"):
        ops.choose_backend(torch.device("cuda"), "pointnet2")


def test_a_choice_is_logged_once_and_a_misspelt_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backends._announce.cache_clear()
    coord = torch.randn(1, 9, 3)
    with caplog.at_level(logging.INFO, "pointloom.ops.backend"):
        for _ in range(3):
            ops.knn(coord, coord, 2)
        ops.knn(coord, coord, 2, backend="torch")
    assert [record.getMessage() for record in caplog.records] == [
        "point operations on cpu run with the numba backend",
        "point operations on cpu run with the torch backend",
    ]
    monkeypatch.setenv(backends.ENVIRONMENT_VARIABLE, "nubma")
    with pytest.raises(BackendError, match="unknown point-operation backend 'nubma'; known: torch, numba, triton"):
        ops.knn(coord, coord, 2)
    assert torch.equal(ops.knn(coord, coord, 2, backend="numba"), ops.knn(coord, coord, 2, backend="torch"))


def test_it_is_refused_where_it_is_not_installed_and_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="needs the package pointnet2_ops, which is compiled from source"):
        ops.choose_backend(torch.device("cuda"), "pointnet2")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(BackendError, match="works on CUDA tensors, got cpu"):
        ops.choose_backend(CPU, "pointnet2")
