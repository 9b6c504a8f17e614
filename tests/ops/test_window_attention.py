"""Windowed attention against attention with a full mask."""

import pytest
import torch

from pointloom.ops import window_attention as module
from pointloom.ops.window_attention import window_attention


@pytest.mark.parametrize("reach", [0, 3, 100])
def test_equals_masked_attention_over_everything(reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 8)
    sizes = (1, 21, 8)
    offset = torch.tensor(sizes).cumsum(0)
    query, key, value = (torch.randn(sum(sizes), 2, 4) for _ in range(3))
    place, scene = torch.arange(sum(sizes)), torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    seen = ((place[:, None] - place).abs() <= reach) & (scene[:, None] == scene)
    scores = torch.einsum("qhd,khd->hqk", query, key) / 2
    expected = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value)
    ours = window_attention(query, key, value, offset, reach=reach)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_dropped_weights_are_the_same_ones_in_the_backward_pass() -> None:
    query, key, value = (torch.randn(40, 2, 4, requires_grad=True) for _ in range(3))
    offset = torch.tensor([40])
    torch.manual_seed(3)
    out = window_attention(query, key, value, offset, reach=5, dropout=0.5)
    assert not torch.allclose(out, window_attention(query, key, value, offset, reach=5))
    (gradient,) = torch.autograd.grad(out[0, 0, 0], value)
    torch.manual_seed(3)
    with torch.no_grad():
        moved = window_attention(query, key, value + gradient, offset, reach=5, dropout=0.5)
    torch.testing.assert_close(moved[0, 0, 0] - out[0, 0, 0], gradient.square().sum(), atol=1e-5, rtol=1e-4)
