"""Rows of neighbours and their weighted sums: kernels against loops, torch and numerical gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pointloom.ops import neighbor_rows, neighbor_sums


def _inputs(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "value": torch.randn(7, 8, dtype=dtype),
        "index": torch.randint(0, 7, (5, 3)),
        "place": torch.randn(5, 3, 3, dtype=dtype),
        "weight": torch.randn(8, 3, dtype=dtype),
        "share": torch.rand(5, 3, 2, dtype=dtype),
    }


def _both(given: dict[str, Tensor], backend: str) -> tuple[Tensor, Tensor]:
    value, index, place, weight, share = given.values()
    rows = neighbor_rows(value, index, place, weight, backend=backend)
    return rows, neighbor_sums(value, index, place, weight, share, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_sums_equal_a_loop_over_neighbours_and_channels(backend: str) -> None:
    given = _inputs()
    rows, sums = _both(given, backend)
    value, index, place, weight, share = (tensor.numpy() for tensor in given.values())
    for q in range(5):
        total = np.zeros(8)
        for k in range(3):
            row = value[index[q, k]] + weight @ place[q, k]
            np.testing.assert_allclose(rows[q, k].numpy(), row, rtol=1e-4, atol=1e-5)
            for c in range(8):
                total[c] += share[q, k, c % 2] * row[c]
        np.testing.assert_allclose(sums[q].numpy(), total, rtol=1e-4, atol=1e-5)


def test_gradients_of_both_backends_agree() -> None:
    given, gradients = _inputs(), {}
    for backend in ("torch", "numba"):
        own = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in given.items()}
        rows, sums = _both(own, backend)
        (rows.square().sum() + sums.square().sum()).backward()
        gradients[backend] = {name: tensor.grad for name, tensor in own.items() if name != "index"}
    for name, plain in gradients["torch"].items():
        torch.testing.assert_close(gradients["numba"][name], plain, rtol=1e-4, atol=1e-4, msg=name)


def test_gradient_equals_a_numerical_one() -> None:
    value, index, place, weight, share = _inputs(torch.double).values()
    inputs = [tensor.requires_grad_() for tensor in (value, place, weight, share)]
    assert torch.autograd.gradcheck(lambda v, p, w, s: neighbor_sums(v, index, p, w, s), inputs)


def test_half_precision_is_summed_in_single_precision() -> None:
    value, index, place, weight, share = _inputs().values()
    value = value.bfloat16().requires_grad_()
    out = neighbor_sums(value, index, place.bfloat16(), weight, share)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert value.grad is not None
    assert value.grad.dtype == torch.bfloat16


def test_channels_that_cannot_share_are_refused() -> None:
    value, index, place, weight, _ = _inputs().values()
    with pytest.raises(ValueError, match="8 channels cannot share 3 weights"):
        neighbor_sums(value, index, place, weight, torch.rand(5, 3, 3))
