"""Chamfer distance against the official values and brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.ops import chamfer_distance


@pytest.mark.parametrize("norm", [1, 2])
def test_loss_and_gradient_equal_the_official_ones(golden: Path, norm: int) -> None:
    with np.load(golden / "ops.npz", allow_pickle=False) as ops:
        a = torch.from_numpy(ops["cd_a"]).requires_grad_()
        b = torch.from_numpy(ops["cd_b"]).requires_grad_()
        loss = chamfer_distance(a, b, norm=norm)
        loss.backward()
        assert loss.item() == pytest.approx(float(ops[f"cd_l{norm}"]), rel=1e-5)
        for ours, key in ((a.grad, f"cd_l{norm}_grad_a"), (b.grad, f"cd_l{norm}_grad_b")):
            assert ours is not None
            assert np.abs(ours.numpy() - ops[key]).max() < 1e-5 * max(np.abs(ops[key]).max(), 1e-3)


def test_value_equals_brute_force() -> None:
    a, b = torch.randn(2, 6, 3), torch.randn(2, 9, 3)
    squared = (a[:, :, None] - b[:, None]).square().sum(-1)
    expected = squared.amin(2).mean() + squared.amin(1).mean()
    assert chamfer_distance(a, b).item() == pytest.approx(expected.item(), rel=1e-5)


def test_equal_sets_have_distance_zero_and_a_finite_gradient() -> None:
    a = torch.randn(1, 5, 3, requires_grad=True)
    loss = chamfer_distance(a, a.detach().clone(), norm=1)
    loss.backward()
    assert loss.item() < 1e-6
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_other_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="norm 1 or 2, got 3"):
        chamfer_distance(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3), norm=3)
