import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pointloom.ops import linear_max

P, K, D, C = 5, 7, 19, 11


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    point, weight, gradient = (torch.randn(*shape, generator=generator) for shape in ((P, K, D), (C, D), (P, C)))
    return point.to(dtype).requires_grad_(), weight.requires_grad_(), gradient


def by_definition(point: Tensor, weight: Tensor, gradient: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, w, g = (t.detach().double().numpy() for t in (point, weight, gradient))
    feature = x @ w.T
    of_point, of_weight = np.zeros_like(x), np.zeros_like(w)
    for p in range(P):
        for c in range(C):
            k = feature[p, :, c].argmax()
            of_point[p, k] += g[p, c] * w[c]
            of_weight[c] += g[p, c] * x[p, k]
    return feature.max(1), of_point, of_weight


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_value_and_gradients_are_those_of_the_definition(backend: str) -> None:
    point, weight, gradient = inputs(torch.float32)
    result = linear_max(point, weight, backend=backend)
    result.backward(gradient)
    value, of_point, of_weight = by_definition(point, weight, gradient)
    np.testing.assert_allclose(result.detach(), value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(point.grad, of_point, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weight.grad, of_weight, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_exact_up_to_its_rounding() -> None:
    point, weight, gradient = inputs(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        result = linear_max(point, weight, backend="numba")
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, F.linear(point, weight.bfloat16()).amax(1))
    result.backward(gradient.bfloat16())
    _, of_point, of_weight = by_definition(point, weight, gradient.bfloat16())
    assert point.grad is not None
    assert point.grad.dtype == torch.bfloat16
    np.testing.assert_allclose(point.grad.float(), of_point, rtol=2**-8, atol=1e-6)
    np.testing.assert_allclose(weight.grad, of_weight, rtol=1e-5, atol=1e-5)


def test_gradients_round_to_the_nearest_bfloat16_like_torch() -> None:
    weight = torch.randn(1, 4096, generator=torch.Generator().manual_seed(1)).requires_grad_()
    point = torch.zeros(1, 1, 4096, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        linear_max(point, weight, backend="numba").sum().backward()
    assert point.grad is not None
    assert torch.equal(point.grad.flatten(), weight.detach().bfloat16().flatten())


def test_the_first_of_tied_points_has_the_gradient_and_nan_is_not_hidden() -> None:
    point = torch.ones(1, 3, 2, requires_grad=True)
    linear_max(point, torch.ones(1, 2), backend="numba").sum().backward()
    assert point.grad is not None
    assert point.grad[0, :, 0].tolist() == [1, 0, 0]
    for place in range(3):
        broken = torch.ones(1, 3, 2)
        broken[0, place] = torch.nan
        assert linear_max(broken, torch.ones(1, 2), backend="numba").isnan().all()


def test_views_that_are_not_contiguous_give_the_same() -> None:
    point, weight, gradient = inputs(torch.float32)
    expected = torch.autograd.grad(linear_max(point, weight), (point, weight), gradient)
    turned = point.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    wide = weight.detach().t().contiguous().t().requires_grad_()
    found = torch.autograd.grad(linear_max(turned, wide), (turned, wide), gradient)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
