"""Attention between listed pairs against dense matrices, with gradients, also where pairs come in several chunks."""

import pytest
import torch
from torch import Tensor

from pointloom.ops import pairs
from pointloom.ops.pairs import pair_dots, pair_softmax, pair_sums


@pytest.fixture(params=[3, 1000])
def listed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """A third of all pairs of 6 and 5 points, in any order; row 2 of the first ones has none."""
    monkeypatch.setattr(pairs, "_CHUNK", request.param)
    allowed = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 1 / 3
    allowed[2], allowed[3, 3] = False, True
    found = torch.nonzero(allowed)
    return found[torch.randperm(len(found))].T


def test_dots_are_entries_of_the_dense_product(listed: Tensor) -> None:
    left, right = (torch.randn(n, 2, 4, dtype=torch.float64, requires_grad=True) for n in (6, 5))
    dense = torch.einsum("phd,qhd->pqh", left, right)
    torch.testing.assert_close(pair_dots(left, right, *listed), dense[listed[0], listed[1]])
    assert torch.autograd.gradcheck(lambda a, b: pair_dots(a, b, *listed), (left, right))


def test_sums_are_the_product_with_a_sparse_matrix(listed: Tensor) -> None:
    weight = torch.randn(listed.shape[1], 2, dtype=torch.float64, requires_grad=True)
    value = torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True)
    matrix = torch.zeros(6, 5, 2, dtype=torch.float64).index_put((listed[0], listed[1]), weight)
    found = pair_sums(weight, value, *listed, 6)
    torch.testing.assert_close(found, torch.einsum("pqh,qhd->phd", matrix, value))
    assert (found[2] == 0).all()
    assert torch.autograd.gradcheck(lambda w, v: pair_sums(w, v, *listed, 6), (weight, value))


def test_softmax_is_that_of_a_dense_matrix_with_nothing_elsewhere(listed: Tensor) -> None:
    logit = (100 * torch.randn(listed.shape[1], 2, dtype=torch.float64)).requires_grad_()
    matrix = torch.full((6, 5, 2), -torch.inf, dtype=torch.float64).index_put((listed[0], listed[1]), logit)
    found = pair_softmax(logit, listed[0], 6)
    torch.testing.assert_close(found, matrix.softmax(1)[listed[0], listed[1]])
    assert torch.autograd.gradcheck(lambda x: pair_softmax(x / 100, listed[0], 6), logit)
