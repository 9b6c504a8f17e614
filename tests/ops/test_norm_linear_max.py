"""Batch norm, ReLU, linear and maximum made piece by piece: what the plain layers make of everything at once."""

import copy
import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops import norm_linear_max
from tests.ops.test_norm_relu import build


def plain(x: Tensor, patch: Tensor, norm: nn.BatchNorm1d, weight: Tensor, kept: Tensor | None) -> Tensor:
    members = F.relu(norm((x + patch.unsqueeze(1)).flatten(0, 1))).view(x.shape)
    return (members if kept is None else members[kept]).matmul(weight.T).amax(1)


@pytest.fixture(params=[7, 2**18])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("pointloom.ops.norm_linear_max")  # the package has a function of that name
    monkeypatch.setattr(module, "PIECE", request.param * 7 * 6)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("some", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_equal_the_plain_layers(some: bool, training: bool) -> None:
    """Statistics are those of all patches, whatever is kept; patches that are left out have a gradient through them."""
    fused = build(6).train(training)
    other = copy.deepcopy(fused).double()
    x, patch, weight = torch.randn(50, 7, 6) + 3.0, torch.randn(50, 6), torch.randn(5, 6)
    kept = torch.tensor([4, 0, 49, 17, 30, 22, 8, 9]) if some else None
    share = torch.randn(8 if some else 50, 5)
    ours = [each.clone().requires_grad_() for each in (x, patch, weight)]
    theirs = [each.double().requires_grad_() for each in (x, patch, weight)]
    out = norm_linear_max(ours[0], ours[1], fused, ours[2], kept=kept)
    expected = plain(theirs[0], theirs[1], other, theirs[2], kept)
    assert torch.allclose(out.double(), expected, atol=1e-4)
    (out * share).sum().backward()
    (expected * share).sum().backward()
    pairs = [*zip(ours, theirs, strict=True), *zip(fused.parameters(), other.parameters(), strict=True)]
    for mine, reference in pairs:
        assert mine.grad is not None
        assert reference.grad is not None
        assert (mine.grad - reference.grad).abs().max() <= 1e-4 * reference.grad.abs().max()
    for mine, reference in zip(fused.buffers(), other.buffers(), strict=True):
        assert torch.allclose(mine.double(), reference.double(), rtol=1e-5)


def test_backends_agree_and_inputs_stay_as_they_are() -> None:
    x, patch, weight = torch.randn(20, 4, 6), torch.randn(20, 6), torch.randn(3, 6)
    before = x.clone()
    found = []
    for backend in ("numba", "torch"):
        torch.manual_seed(3)
        leaf = x.requires_grad_()
        out = norm_linear_max(leaf, patch, build(6), weight, kept=torch.arange(5), backend=backend)
        found.append([out, *torch.autograd.grad(out.square().sum(), leaf)])
    for numba, torch_ in zip(*found, strict=True):
        assert torch.allclose(numba, torch_, atol=1e-4)
    assert torch.equal(x, before)


def test_bfloat16_is_close_to_float32() -> None:
    x, patch, weight = torch.randn(40, 8, 6).bfloat16(), torch.randn(40, 6).bfloat16(), torch.randn(5, 6)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(1)
        norm = build(6)
        leaves = [each.clone().to(dtype).requires_grad_() for each in (x, patch)]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = norm_linear_max(*leaves, norm, weight)
        assert out.dtype == dtype
        out.float().sum().backward()
        found.append([out.float(), *(leaf.grad.float() for leaf in leaves if leaf.grad is not None)])
    for low, high in zip(*found, strict=True):
        assert (low - high).abs().mean() <= 0.03 * high.abs().mean()
