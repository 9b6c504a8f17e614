"""Fused normalisation and ReLU: the values, gradients and running statistics of the plain layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointloom.ops import norm_relu


def build(channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    with torch.no_grad():
        norm.weight[0] = 0.0
    return norm


@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_equal_the_plain_layers(training: bool) -> None:
    """Far from the origin, where sums of squares lose digits."""
    torch.manual_seed(0)
    fused = build(6).train(training)
    plain = copy.deepcopy(fused).double()
    x, patch = torch.randn(50, 7, 6) + 20.0, torch.randn(50, 6)
    patch[:, 1] += 100.0
    weight = torch.randn(50, 7, 6)
    ours = [x.clone().requires_grad_(), patch.clone().requires_grad_()]
    theirs = [x.double().requires_grad_(), patch.double().requires_grad_()]
    out = norm_relu(ours[0], ours[1], fused)
    expected = F.relu(plain((theirs[0] + theirs[1].unsqueeze(1)).flatten(0, 1))).view(50, 7, 6)
    assert torch.allclose(out.double(), expected, atol=1e-3 if not training else 1e-4)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    pairs = [*zip(ours, theirs, strict=True), *zip(fused.parameters(), plain.parameters(), strict=True)]
    for mine, other in pairs:
        assert mine.grad is not None
        assert other.grad is not None
        assert (mine.grad - other.grad).abs().max() <= 1e-4 * other.grad.abs().max() + 1e-4
    for mine, other in zip(fused.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(mine.double(), other.double(), rtol=1e-5)


def test_bfloat16_is_the_rounded_float32_result() -> None:
    torch.manual_seed(0)
    x, patch, weight = (torch.randn(shape).bfloat16() for shape in ((40, 8, 6), (40, 6), (40, 8, 6)))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(1)
        norm = build(6)
        leaves = [each.clone().to(dtype).requires_grad_() for each in (x, patch)]
        out = norm_relu(*leaves, norm)
        assert out.dtype == dtype
        (out * weight.to(dtype)).sum().backward()
        found.append([out, *(leaf.grad for leaf in leaves), norm.weight.grad])
    for low, high in zip(*found, strict=True):
        assert low is not None
        assert high is not None
        assert (low.float() - high).abs().max() <= 2**-8 * high.abs().max()


def test_what_is_not_finite_stays_visible() -> None:
    x = torch.randn(3, 4, 2)
    x[1, 2, 0] = float("nan")
    out = norm_relu(x, torch.zeros(3, 2), nn.BatchNorm1d(2))
    assert out[..., 0].isnan().all()
    assert out[..., 1].isfinite().all()


def test_backends_agree() -> None:
    x, patch = torch.randn(9, 4, 5), torch.randn(9, 5)
    first, second = (norm_relu(x, patch, nn.BatchNorm1d(5), backend=name) for name in ("numba", "torch"))
    assert torch.allclose(first, second, atol=1e-5)
