"""Earth mover's distance against all pairings, and its gradient."""

from itertools import permutations

import pytest
import torch

from pointloom.ops import chamfer_distance, earth_movers_distance


def test_value_is_the_smallest_over_all_pairings() -> None:
    a, b = torch.randn(20, 5, 3), torch.randn(20, 5, 3)
    lengths = torch.stack([(a - b[:, list(order)]).norm(dim=-1).mean(1) for order in permutations(range(5))])
    assert earth_movers_distance(a, b).item() == pytest.approx(lengths.amin(0).mean().item(), rel=1e-6)


def test_order_of_points_does_not_matter_and_a_shift_costs_its_length() -> None:
    a = torch.randn(3, 16, 3)
    shift = torch.tensor([0.3, 0.0, -0.4])
    shuffled = (a + shift)[:, torch.randperm(16)]
    assert earth_movers_distance(a, shuffled).item() == pytest.approx(0.5, rel=1e-5)


def test_every_point_needs_a_partner_of_its_own() -> None:
    """Every predicted point lies on a target point, three of them on the same one: two have a way to go."""
    target = torch.eye(4)[None, :, :3]
    pred = target[:, [0, 0, 0, 1]]
    assert earth_movers_distance(pred, target).item() == pytest.approx((2**0.5 + 1.0) / 4, rel=1e-5)
    assert chamfer_distance(pred, target, norm=1).item() < earth_movers_distance(pred, target).item()


def test_gradient_equals_finite_differences() -> None:
    a, b = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    moved = a.clone().requires_grad_()
    earth_movers_distance(moved, b).backward()
    assert moved.grad is not None
    direction, step = torch.randn_like(a), 1e-2
    up, down = earth_movers_distance(a + step * direction, b), earth_movers_distance(a - step * direction, b)
    expected = ((up - down) / (2 * step)).item()
    assert (moved.grad * direction).sum().item() == pytest.approx(expected, rel=2e-2, abs=1e-3)


def test_equal_sets_have_distance_zero_and_a_finite_gradient_and_nan_stays_nan() -> None:
    a = torch.randn(1, 5, 3, requires_grad=True)
    loss = earth_movers_distance(a, a.detach().flip(1))
    loss.backward()
    assert loss.item() < 1e-6
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert earth_movers_distance(a.detach() * torch.nan, a.detach()).isnan()
