"""A step asks the device for nothing and sends it nothing: it runs on tensors that have shapes and no values.

Device ``meta`` stands for a GPU: like there, the reference operations run, and an answer that depends on values would
make the host wait. ``tests/gpu/test_gpu_waits.py`` asks CUDA itself.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pointloom.methods.masking import multi_scale_mask, random_mask, visible_bounds
from pointloom.models import visible
from pointloom.structures import PointBatch
from tests.gpu.test_gpu_steps import METHODS
from tests.methods.test_m2ae import clouds, tiny_encoder, tiny_method

META = torch.device("meta")


class Watch(TorchDispatchMode):
    """Counts operations and lists those between the host and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.crossings = 0, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        self.operations += devices == {"meta"}
        if len(devices) > 1:
            self.crossings.append(str(func))
        return out


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch knows no autocast for tensors without values."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def watched_step(method: nn.Module, batch: Any) -> Watch:
    method.zero_grad()
    with Watch() as watch:
        method(batch)["loss"].backward()
    return watch


@pytest.mark.parametrize("name", list(METHODS))
def test_a_step_needs_no_values_no_copies_and_as_many_operations_for_a_larger_batch(name: str) -> None:
    build, draw = METHODS[name]
    method, batch = build().train().to(META), draw().to(META)
    step = watched_step(method, batch)
    assert step.crossings == []
    if isinstance(batch, PointBatch):
        twice = PointBatch(**{name: torch.cat([value, value]) for name, value in vars(batch).items()})
        assert watched_step(method, twice).operations == step.operations


@pytest.mark.parametrize("compat", ["clean", "official"])
@pytest.mark.parametrize("multi_scale", [True, False])
def test_slots_that_are_not_counted_change_no_loss_and_no_gradient(
    compat: str, multi_scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding is longer then; clouds lie near the origin, where official padding is seen."""
    found, lengths = [], []
    method = tiny_method(compat=compat, multi_scale=multi_scale).double()
    batch = clouds()
    batch = PointBatch(coord=0.2 * batch.coord.double(), label=batch.label, row=batch.row)
    for counted_on in (("cpu",), ()):
        monkeypatch.setattr(visible, "COUNTED_ON", counted_on)
        torch.manual_seed(5)
        groups = method.group(batch.coord)
        masks = method.hide(groups)
        bounds = visible_bounds((32, 16, 10), (8, 4, 4), ratio=0.8, multi_scale=multi_scale)
        lengths.append([level.tokens.shape[1] for level in method.encoder(groups, masks, bounds)])
        torch.manual_seed(5)
        loss = method(batch)["loss"]
        found.append([loss, *torch.autograd.grad(loss, [p for p in method.parameters() if p.requires_grad])])
    assert (lengths[0] != lengths[1]) == multi_scale
    for counted, bounded in zip(*found, strict=True):
        torch.testing.assert_close(bounded, counted, rtol=1e-8, atol=1e-10)


def test_bounds_hold_for_drawn_masks() -> None:
    encoder = tiny_encoder()
    groups = encoder.group(clouds(30).coord)
    masks = multi_scale_mask(groups, random_mask(groups[-1].centers, ratio=0.5), first_always_visible=True)
    bounds = visible_bounds(*encoder.cut[:2], ratio=0.5)
    assert bounds == [(0, 32), (0, 16), (5, 5)]
    assert visible_bounds((512, 256, 64), (16, 8, 8), ratio=0.8) == [(0, 512), (0, 105), (13, 13)]
    for mask, (fewest, most) in zip(masks, bounds, strict=True):
        counts = (~mask).sum(1)
        assert fewest <= int(counts.min())
        assert int(counts.max()) <= most
