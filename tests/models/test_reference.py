"""The fast path computes what the reference path computes: the same losses, gradients and batch statistics."""

import copy

import pytest
import torch
from torch import nn

from pointloom.methods.m2ae import M2AE
from pointloom.methods.mae import MAE
from pointloom.models.hierarchical_decoder import TokenPropagation
from pointloom.models.patch_embed import PatchEmbed
from pointloom.models.point_m2ae import point_m2ae_tiny
from pointloom.models.point_mae import point_mae_tiny
from pointloom.models.reference import use_reference_path
from pointloom.structures import PointBatch


def method(name: str) -> nn.Module:
    if name == "mae":
        return MAE(
            point_mae_tiny(), mask_ratio=0.6, mask="random", decoder_depth=1, decoder_heads=6, drop_path=0.1,
            loss_norm=2, small_start=False,
        )  # fmt: skip
    return M2AE(
        point_m2ae_tiny(), mask_ratio=0.8, multi_scale=True, decoder_stages=2, decoder_depth=1, decoder_heads=6,
        drop_path=0.1, skip=True, points_per_token=16, loss="chamfer", loss_norm=2, small_start=False,
        compat="official",
    )  # fmt: skip


def step(model: nn.Module) -> torch.Tensor:
    """Return the loss of a batch, the same one and with the same masks at every call, and leave its gradients."""
    torch.manual_seed(1)
    empty = torch.zeros(4, dtype=torch.long)
    coord = torch.randn(4, 256, 3).to(next(model.parameters()).dtype) / 3
    loss: torch.Tensor = model(PointBatch(coord=coord, label=empty, row=empty))["loss"]
    loss.backward()
    return loss.detach()


def _gradient(model: nn.Module, key: str) -> torch.Tensor:
    gradient = model.get_parameter(key).grad
    assert gradient is not None
    return gradient.flatten()


@pytest.mark.parametrize("name", ["mae", "m2ae"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # in float32 near-ties in a maximum fall the other way and move the gradients of the patch embedder
    [(torch.float32, 1e-2), (torch.float64, 1e-10)],
)
def test_reference_path_gives_the_same_losses_gradients_and_statistics(
    name: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    fast = method(name).to(dtype)
    plain = copy.deepcopy(fast)
    use_reference_path(plain)
    fast_loss = step(fast)
    monkeypatch.setenv("POINTLOOM_OPS_BACKEND", "torch")
    assert step(plain).item() == pytest.approx(fast_loss.item(), rel=1e-4)
    trained = [key for key, value in fast.named_parameters() if value.grad is not None]
    assert trained == [key for key, value in plain.named_parameters() if value.grad is not None]
    ours, theirs = (torch.cat([_gradient(model, key) for key in trained]) for model in (fast, plain))
    assert (ours - theirs).norm() <= tolerance * theirs.norm()
    statistics = dict(plain.named_buffers())
    for key, value in fast.named_buffers():
        assert torch.allclose(value, statistics[key], rtol=1e-4, atol=1e-5), key


def test_reference_path_leaves_no_fast_part_and_keeps_all_weights() -> None:
    for name in ("mae", "m2ae"):
        model = method(name)
        before = {key: value.data_ptr() for key, value in model.state_dict().items()}
        use_reference_path(model)
        assert {key: value.data_ptr() for key, value in model.state_dict().items()} == before
        assert not any(isinstance(part, PatchEmbed | TokenPropagation) for part in model.modules())
