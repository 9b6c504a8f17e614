"""InfoNCE in blocks against torch's cross-entropy."""

import pytest
import torch
from torch.nn import functional as F

from pointloom.ops import info_nce as module
from pointloom.ops.info_nce import info_nce


def test_value_and_gradient_equal_cross_entropy_with_the_diagonal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 4)
    query = F.normalize(torch.randn(11, 5), dim=1).requires_grad_()
    target = F.normalize(torch.randn(11, 5), dim=1)
    ours = info_nce(query, target, temperature=0.2)
    (own,) = torch.autograd.grad(3 * ours, query)
    plain = F.cross_entropy(query @ target.T / 0.2, torch.arange(11))
    (expected,) = torch.autograd.grad(3 * plain, query)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(own, expected)


def test_two_opposite_vectors_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # Own similarity 1, the other one -1: log(e + 1/e) - 1 for both rows.
    expected = torch.tensor(2.718281828 + 1 / 2.718281828).log() - 1
    torch.testing.assert_close(info_nce(query, query, temperature=1.0), expected)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0, got 2 and 0"):
        info_nce(torch.zeros(2, 3), torch.zeros(2, 3), temperature=0.0)
    with pytest.raises(ValueError, match="rows"):
        info_nce(torch.zeros(0, 3), torch.zeros(0, 3), temperature=1.0)
