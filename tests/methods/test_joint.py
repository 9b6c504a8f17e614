"""Alignment and masked distillation in the same steps, on tiny clouds."""

import pytest
import torch
from torch.nn import functional as F

from pointloom.methods.align import Align
from pointloom.methods.distill import Distill
from pointloom.methods.joint import Joint
from pointloom.models.ema import EmaTeacher
from pointloom.structures import AlignBatch, FollowsSteps
from tests.methods.test_mae import clouds, tiny_encoder


def tiny_joint(momentum: float = 0.75) -> Joint:
    torch.manual_seed(0)
    align = Align(
        tiny_encoder(class_token=True), text_dim=8, image_dims={"dino": 6}, per_teacher_temperature=True,
        multi_positive=False,
    )  # fmt: skip
    follower = EmaTeacher(align.encoder, buffers="copy", always_evaluate=True)
    distill = Distill(
        align.encoder, follower.network, mask_ratio=0.6, mask="random", local_target="tokens", local_weight=1.0,
        global_term=True, shuffle=True, decoder_depth=1, global_depth=1, decoder_heads=2,
    )  # fmt: skip
    return Joint(align, distill, follower=follower, momentum=momentum)


def batch(rows: int = 4) -> AlignBatch:
    everything = torch.ones(rows, dtype=torch.bool)
    return AlignBatch(
        points=clouds(rows), text=F.normalize(torch.randn(rows, 8), dim=-1), has_text=everything,
        text_id=torch.arange(rows), images={"dino": F.normalize(torch.randn(rows, 6), dim=-1)},
        has_image={"dino": everything},
    )  # fmt: skip


def test_loss_is_the_sum_of_both_stages() -> None:
    method, drawn = tiny_joint().eval(), batch()
    torch.manual_seed(2)
    losses = method(drawn)
    aligned = method.align(drawn)
    torch.manual_seed(2)
    distilled = method.distill(drawn.points)
    assert losses["loss"].item() == pytest.approx(aligned["loss"].item() + distilled["loss"].item(), rel=1e-6)
    assert {"loss/text", "loss/dino", "loss/local", "loss/global"} <= losses.keys()


def test_teacher_has_no_gradient_and_follows_the_encoder_after_every_step() -> None:
    method, drawn = tiny_joint().train(), batch()
    assert isinstance(method, FollowsSteps)
    assert not method.distill.teacher.training
    before = [p.clone() for p in method.distill.teacher.parameters()]
    method(drawn)["loss"].backward()
    assert all(p.grad is None for p in method.distill.teacher.parameters())
    assert all(p.grad is not None for p in method.align.parameters())
    with torch.no_grad():
        for p in method.align.encoder.parameters():
            p.add_(1.0)
    method.after_step()
    for old, now, new in zip(
        before, method.distill.teacher.parameters(), method.align.encoder.parameters(), strict=True
    ):
        assert torch.allclose(now, 0.75 * old + 0.25 * new, atol=1e-6)


def test_strangers_are_refused() -> None:
    one, other = tiny_joint(), tiny_joint()
    with pytest.raises(ValueError, match="the student must be the encoder that is aligned"):
        Joint(one.align, other.distill, follower=one.follower, momentum=0.9)
