"""A thin layer folded into its batch norm: the values, gradients and running statistics of the plain layers."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointloom.ops import linear_norm_relu

WIDTHS = [(3, 16), (6, 16)]  # thin, and not


@pytest.mark.parametrize(("given", "made"), WIDTHS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_values_gradients_and_statistics_equal_the_plain_layers(
    given: int, made: int, training: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """Inputs lie off the origin and are correlated."""
    torch.manual_seed(0)
    layer, norm = nn.Linear(given, made), nn.BatchNorm1d(made).train(training)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(50, 7, given) @ torch.randn(given, given) + 3.0
    share = torch.randn(50, 7, made)
    plain = [copy.deepcopy(module).double() for module in (layer, norm)]
    layer, norm = layer.to(dtype), norm.to(dtype)
    ours, theirs = (x.clone().to(each).requires_grad_() for each in (dtype, torch.float64))
    out = linear_norm_relu(ours, layer, norm)
    expected = F.relu(plain[1](plain[0](theirs).flatten(0, 1))).view(50, 7, made)
    assert torch.allclose(out.double(), expected, atol=tolerance * 10)
    (out * share).sum().backward()
    (expected * share).sum().backward()
    pairs = [
        (ours, theirs),
        (layer.weight, plain[0].weight),
        *zip(norm.parameters(), plain[1].parameters(), strict=True),
    ]
    for mine, other in pairs:
        assert mine.grad is not None
        assert other.grad is not None
        assert (mine.grad - other.grad).abs().max() <= tolerance * other.grad.abs().max()
    for mine, other in zip(norm.buffers(), plain[1].buffers(), strict=True):
        assert torch.allclose(mine.double(), other.double(), rtol=tolerance)


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    layer, norm, x = nn.Linear(3, 16), nn.BatchNorm1d(16), torch.randn(40, 8, 3)
    expected = linear_norm_relu(x, layer, norm)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_norm_relu(x, layer, norm)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() <= 0.03 * expected.abs().max()
