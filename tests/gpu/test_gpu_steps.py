"""A step of every pre-training method on the device against the CPU: same loss, same gradients, finite in bfloat16."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pointloom.methods.align import Align
from pointloom.structures import AlignBatch, PointBatch
from tests.methods.test_distill import tiny_distill
from tests.methods.test_hierarchical_stages import tiny_distill as hierarchical_distill
from tests.methods.test_joint import batch as joint_batch
from tests.methods.test_joint import tiny_joint
from tests.methods.test_m2ae import clouds as larger_clouds
from tests.methods.test_m2ae import plain_encoder_method
from tests.methods.test_m2ae import tiny_method as m2ae
from tests.methods.test_mae import clouds, tiny_encoder
from tests.methods.test_mae import tiny_method as mae
from tests.methods.test_mm3dscene import method as mm3dscene
from tests.methods.test_mm3dscene import scenes
from tests.methods.test_msc import method as msc
from tests.methods.test_msm import method as msm
from tests.methods.test_pqae import tiny_method as pqae
from tests.models.scene_views import turned_views

pytestmark = pytest.mark.gpu


def align() -> Align:
    return Align(tiny_encoder(), text_dim=8, image_dims={"dino": 6}, per_teacher_temperature=True, multi_positive=True)


def triplets(points: PointBatch) -> AlignBatch:
    present = torch.tensor([True, False, True, True])
    return AlignBatch(
        points=points, text=F.normalize(torch.randn(4, 8), dim=-1), has_text=present,
        text_id=torch.tensor([0, -1, 0, 1]), images={"dino": F.normalize(torch.randn(4, 6), dim=-1)},
        has_image={"dino": ~present},
    )  # fmt: skip


Methods = dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]]

METHODS: Methods = {
    "mae": (mae, clouds),
    "m2ae": (m2ae, larger_clouds),
    "m2ae, plain encoder": (plain_encoder_method, larger_clouds),
    "m2ae, official": (lambda: m2ae(compat="official"), larger_clouds),
    "pqae": (pqae, clouds),
    "align": (align, lambda: triplets(clouds())),
    "distill": (tiny_distill, clouds),
    "distill, points": (lambda: tiny_distill(local_target="points"), clouds),
    "distill, m2ae": (hierarchical_distill, larger_clouds),
    "distill, m2ae, points": (lambda: hierarchical_distill(local_target="points"), larger_clouds),
    "joint": (tiny_joint, joint_batch),
}
"""Of objects: their steps never make the host wait."""

SCENE_METHODS: Methods = {
    "mm3dscene": (mm3dscene, lambda: scenes(90, 60)),
    "msm": (msm, turned_views),
    "msm, shared masks": (lambda: msm(mask="top_down", mask_shared=True), turned_views),
    "msc": (msc, turned_views),
}
"""Of scenes: how many voxels there are is only known when they are made."""


@pytest.fixture(autouse=True)
def _same_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw all random numbers on the CPU, so that masks and crops agree."""
    for name in ("rand", "randint", "randn", "randperm"):
        original = getattr(torch, name)

        def draw(*args: Any, original: Any = original, device: Any = None, **options: Any) -> torch.Tensor:
            drawn: torch.Tensor = original(*args, **options)
            return drawn if device is None else drawn.to(device)

        monkeypatch.setattr(torch, name, draw)


@pytest.mark.parametrize("name", [*METHODS, *SCENE_METHODS])
def test_loss_and_gradients_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    build, draw = (METHODS | SCENE_METHODS)[name]
    method, batch = build().train(), draw()
    found = []
    for where in (torch.device("cpu"), device):
        each = deepcopy(method).to(where)
        torch.manual_seed(7)
        losses = each(batch.to(where))
        losses["loss"].backward()
        gradients = {key: p.grad.cpu() for key, p in each.named_parameters() if p.grad is not None}
        found.append(({key: value.item() for key, value in losses.items()}, gradients))
    (losses, gradients), (other_losses, other_gradients) = found
    assert other_losses == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert gradients.keys() == other_gradients.keys()
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        assert float((other_gradients[key] - gradient).norm()) <= 3e-3 * float(gradient.norm()) + 1e-6 * largest, key


@pytest.mark.parametrize("name", [*METHODS, *SCENE_METHODS])
def test_step_in_bfloat16_is_close_and_finite(name: str, device: torch.device) -> None:
    build, draw = (METHODS | SCENE_METHODS)[name]
    method, batch = build().train().to(device), draw().to(device)
    values = []
    for enabled in (False, True):
        torch.manual_seed(7)
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            loss = method(batch)["loss"]
        method.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
        values.append(loss.item())
    assert values[1] == pytest.approx(values[0], rel=0.1)
