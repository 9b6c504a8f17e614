"""Point operations on the device against the CPU: same indices, same values, same gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pointloom import ops

pytestmark = pytest.mark.gpu

_RANDOM = torch.Generator().manual_seed(0)
COORD, QUERY = (torch.randn(2, n, 3, generator=_RANDOM) for n in (700, 30))
OFFSET, QUERY_OFFSET = torch.tensor([400, 900, 1400]), torch.tensor([10, 25, 60])

INDICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "farthest points": lambda c, _: ops.farthest_point_sampling(c, 64, skip_near_origin=0.3),
    "farthest points, ragged": lambda c, _: ops.farthest_point_sampling_ragged(
        c.view(-1, 3), OFFSET.to(c.device), torch.tensor([30, 40, 50], device=c.device)
    ),
    "neighbours": lambda c, q: ops.knn(q, c, 16),
    "neighbours, ragged": lambda c, q: ops.knn_ragged(
        q.view(-1, 3), QUERY_OFFSET.to(c.device), c.view(-1, 3), OFFSET.to(c.device), 7
    ),
    "ball": lambda c, q: ops.ball_query(q, c, radius=0.6, num=12),
    "ball, ragged": lambda c, q: ops.ball_query_ragged(
        q.view(-1, 3), QUERY_OFFSET.to(c.device), c.view(-1, 3), OFFSET.to(c.device), radius=0.6, num=12
    ),
}


@pytest.mark.parametrize("name", list(INDICES))
def test_indices_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    on_cpu = INDICES[name](COORD, QUERY)
    assert torch.equal(INDICES[name](COORD.to(device), QUERY.to(device)).cpu(), on_cpu)


FEATURE, WEIGHT = torch.randn(2, 700, 8, generator=_RANDOM), torch.randn(12, 8, generator=_RANDOM)
VALUES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "interpolation": lambda c, q, f: ops.interpolate_features(q, c, f),
    "grouping": lambda c, q, f: ops.gather_points(f, ops.knn(q, c, 5)),
    "Chamfer L1": lambda c, q, _: ops.chamfer_distance(q, c, norm=1),
    "Chamfer L2": lambda c, q, _: ops.chamfer_distance(q, c, norm=2),
    "earth mover's distance": lambda c, q, _: ops.earth_movers_distance(q, c[:, :30].contiguous()),
    "Chamfer L2, some": lambda c, q, _: ops.chamfer_distance(
        q, c, counted=torch.tensor([True, False], device=c.device)
    ),
    "Chamfer L2, ragged": lambda c, q, _: ops.chamfer_distance_ragged(
        q.view(-1, 3), QUERY_OFFSET.to(c.device), c.view(-1, 3), OFFSET.to(c.device)
    ),
    "interpolation, ragged": lambda c, q, f: ops.weighted_rows(
        f.view(-1, 8),
        *ops.nearest_weights(q.view(-1, 3), QUERY_OFFSET.to(c.device), c.view(-1, 3), OFFSET.to(c.device)),
    ),
    "vector attention": lambda c, q, f: ops.neighbor_sums(
        f[0],
        ops.knn(q, c, 5)[0],
        q[0, :, None].expand(-1, 5, -1),
        WEIGHT[:8, :3].to(c.device),
        q[0, :, None, :2].expand(-1, 5, -1),
    ),
    "linear and maximum": lambda _c, _q, f: ops.linear_max(f.view(-1, 7, 8), WEIGHT.to(f.device)),
    "maximum": lambda _c, _q, f: ops.max_over_points(f),
}


@pytest.mark.parametrize("name", list(VALUES))
def test_values_and_gradients_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    found = []
    for where in (torch.device("cpu"), device):
        inputs = [value.to(where).requires_grad_() for value in (COORD, QUERY, FEATURE)]
        value = VALUES[name](*inputs)
        torch.manual_seed(1)
        out = (value * torch.randn(value.shape).to(where)).sum()
        gradients = torch.autograd.grad(out, inputs, allow_unused=True)
        found.append([value, *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) == len(found[1])
    for on_cpu, on_device in zip(*found, strict=True):
        assert torch.allclose(on_device.cpu(), on_cpu, atol=1e-5 * float(on_cpu.detach().abs().max()), rtol=1e-4)


def test_batch_norm_with_relu_is_that_of_the_cpu_with_its_running_statistics(device: torch.device) -> None:
    point, patch = torch.randn(50, 6, 8), torch.randn(50, 8)
    found = []
    for where in (torch.device("cpu"), device):
        norm = nn.BatchNorm1d(8).to(where)
        inputs = [value.to(where).requires_grad_() for value in (point, patch)]
        value = ops.norm_relu(inputs[0], inputs[1], norm)
        gradients = torch.autograd.grad((value * torch.arange(8.0, device=where)).sum(), inputs)
        found.append([value, *gradients, norm.running_mean, norm.running_var])
    for on_cpu, on_device in zip(*found, strict=True):
        assert torch.allclose(on_device.cpu(), on_cpu, atol=1e-4)
