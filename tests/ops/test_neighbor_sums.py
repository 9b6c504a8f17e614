"""Rows of neighbours and their weighted sums: kernels against loops, torch and numerical gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pointloom.ops import neighbor_rows, neighbor_sums


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = torch.randint(0, 7, (5, 3))
    value, added = torch.randn(7, 8, dtype=dtype), torch.randn(5, 3, 8, dtype=dtype)
    return value, index, added, torch.rand(5, 3, 2, dtype=dtype)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_sums_equal_a_loop_over_neighbours_and_channels(backend: str) -> None:
    value, index, added, weight = _inputs()
    rows = neighbor_rows(value, index, added, backend=backend)
    sums = neighbor_sums(value, index, added, weight, backend=backend)
    for q in range(5):
        total = np.zeros(8)
        for k in range(3):
            row = (value[index[q, k]] + added[q, k]).numpy()
            np.testing.assert_allclose(rows[q, k].numpy(), row, rtol=1e-6)
            for c in range(8):
                total[c] += weight[q, k, c % 2].item() * row[c]
        np.testing.assert_allclose(sums[q].numpy(), total, rtol=1e-5, atol=1e-6)


def test_gradients_of_both_backends_agree() -> None:
    gradients = {}
    given = _inputs()
    for backend in ("torch", "numba"):
        value, added, weight = (given[i].clone().requires_grad_() for i in (0, 2, 3))
        rows = neighbor_rows(value, given[1], added, backend=backend)
        sums = neighbor_sums(value, given[1], added, weight, backend=backend)
        (rows.square().sum() + sums.square().sum()).backward()
        gradients[backend] = [value.grad, added.grad, weight.grad]
    for ours, plain in zip(gradients["numba"], gradients["torch"], strict=True):
        torch.testing.assert_close(ours, plain)


def test_gradient_equals_a_numerical_one() -> None:
    value, index, added, weight = _inputs(torch.double)
    inputs = [tensor.requires_grad_() for tensor in (value, added, weight)]
    assert torch.autograd.gradcheck(lambda v, a, w: neighbor_sums(v, index, a, w), inputs)


def test_half_precision_is_summed_in_single_precision() -> None:
    value, index, added, weight = _inputs()
    value = value.bfloat16().requires_grad_()
    out = neighbor_sums(value, index, added.bfloat16(), weight)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert value.grad is not None
    assert value.grad.dtype == torch.bfloat16


def test_channels_that_cannot_share_are_refused() -> None:
    value, index, added, _ = _inputs()
    with pytest.raises(ValueError, match="8 channels cannot share 3 weights"):
        neighbor_sums(value, index, added, torch.rand(5, 3, 3))
