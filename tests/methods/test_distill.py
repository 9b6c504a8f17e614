"""What masked distillation promises, on tiny clouds."""

import pytest
import torch
from torch import nn

from pointloom.methods.distill import Distill, cosine_distance, visible_first, with_summary
from pointloom.methods.masking import random_mask
from pointloom.models.decoders import MaskedDecoder, PooledHead
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.ops import gather_points
from pointloom.structures import Groups
from tests.methods.test_mae import clouds, tiny_encoder


def tiny_distill(student: PointMAEEncoder | None = None, **changed: object) -> Distill:
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "mask_ratio": 0.6, "mask": "random", "local_target": "tokens", "local_weight": 1.0, "global_term": True,
        "shuffle": True, "decoder_depth": 1, "global_depth": 1, "decoder_heads": 2,
    }  # fmt: skip
    teacher = tiny_encoder(class_token=True, drop_path=0.5)
    return Distill(student or tiny_encoder(class_token=True), teacher, **(settings | changed))  # type: ignore[arg-type]


def test_cosine_distance_is_zero_for_equal_directions_and_its_gradient_turns_towards_the_target() -> None:
    target = torch.randn(3, 5, 8)
    assert cosine_distance(3 * target, target).abs().max() < 1e-6
    assert cosine_distance(-target, target).sub(2).abs().max() < 1e-6
    guess = torch.randn(3, 5, 8, requires_grad=True)
    before = cosine_distance(guess, target).mean()
    before.backward()
    assert guess.grad is not None
    assert cosine_distance(guess - guess.grad, target).mean() < before


def test_perfect_student_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = tiny_distill(), clouds()
    groups = method.encoder.group(batch.coord)
    hidden = random_mask(groups[0].centers, ratio=0.6)
    (taught,) = method.teacher(groups)
    right, feature = gather_points(taught.tokens, visible_first(hidden)), method.teacher.pool([taught])
    monkeypatch.setattr(method, "mask", lambda *_, **__: hidden)
    monkeypatch.setattr(method.local_decoder, "everywhere", lambda *_: right)
    monkeypatch.setattr(method.global_decoder, "forward", lambda *_: feature)
    monkeypatch.setattr(method, "predict", nn.Identity())
    losses = method(batch)
    assert losses["loss/local"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss/global"].item() == pytest.approx(0, abs=1e-6)
    monkeypatch.setattr(method.local_decoder, "everywhere", lambda *_: taught.tokens)  # right, but in wrong places
    assert method(batch)["loss/local"].item() > 0.001


@pytest.mark.parametrize("depth", [0, 1])
def test_global_term_reaches_the_class_token(depth: int) -> None:
    method = tiny_distill(local_target="none", global_depth=depth)
    method(clouds())["loss"].backward()
    token = method.encoder.cls_token
    assert token is not None
    assert token.grad is not None
    assert token.grad.abs().max() > 0
    (seen,) = method.encoder(method.encoder.group(clouds().coord))
    assert seen.summary is not None
    assert torch.equal(with_summary(seen)[:, 0], seen.summary)
    assert with_summary(seen).shape[1] == seen.tokens.shape[1] + 1


def test_global_decoder_without_blocks_predicts_from_the_pooling_that_later_stages_use() -> None:
    method, batch = tiny_distill(local_target="none", global_depth=0).eval(), clouds()
    groups = method.encoder.group(batch.coord)
    hidden = random_mask(groups[0].centers, ratio=0.6)
    method.mask = lambda *_, **__: hidden
    feature = method.encoder.pool(method.encoder(groups, [hidden]))
    assert isinstance(method.global_decoder, PooledHead)
    first, _, last = method.global_decoder.layers
    guess = last(nn.functional.gelu(first(feature)))
    target = method.teacher.pool(method.teacher(groups))
    expected = 1 - nn.functional.cosine_similarity(guess, target, dim=-1).mean()
    assert method(batch)["loss/global"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_visible_tokens_come_first_and_in_the_order_of_the_encoder() -> None:
    encoder, batch = tiny_encoder().eval(), clouds()
    groups = encoder.group(batch.coord)
    hidden = random_mask(groups[0].centers, ratio=0.6)
    (seen,) = encoder(groups, [hidden])
    order = visible_first(hidden)
    centers = gather_points(groups[0].centers, order)
    assert torch.equal(centers[:, : seen.tokens.shape[1]], seen.centers)
    assert torch.equal(hidden.gather(1, order), torch.tensor([[False] * 4 + [True] * 4]).expand(4, 8))


@pytest.mark.parametrize("local_target", ["tokens", "points", "none"])
@pytest.mark.parametrize("visible_only", [False, True])
def test_every_trainable_parameter_gets_a_gradient_and_the_teacher_none(local_target: str, visible_only: bool) -> None:
    student = tiny_encoder(class_token=True)
    student.embed_visible_only = visible_only
    method = tiny_distill(student, local_target=local_target)
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    losses = method(clouds())
    losses["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None
            assert not parameter.requires_grad
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    assert all(torch.equal(before[name], value) for name, value in method.teacher.state_dict().items())


def test_teacher_stays_in_evaluation_mode_while_training() -> None:
    method = tiny_distill()
    method.train()
    assert method.encoder.training
    assert not any(module.training for module in method.teacher.modules())
    coord = clouds().coord
    first, second = (method.teacher(method.teacher.group(coord))[0].tokens for _ in range(2))
    assert torch.equal(first, second)  # despite its drop-path of 0.5


@pytest.mark.parametrize("visible_only", [False, True])
def test_hidden_points_cannot_change_the_students_visible_tokens(visible_only: bool) -> None:
    student = tiny_encoder(class_token=True)
    student.embed_visible_only = visible_only
    method = tiny_distill(student).eval()
    (level,) = method.encoder.group(clouds().coord)
    hidden = random_mask(level.centers, ratio=0.6)
    noise = torch.randn_like(level.neighborhood) * hidden[..., None, None]
    changed = Groups(level.centers, level.neighborhood + noise, level.index)
    (before,), (after,) = (method.encoder([groups], [hidden]) for groups in (level, changed))
    assert torch.equal(before.tokens, after.tokens)
    assert torch.equal(before.summary, after.summary)
    assert method.global_decoder is not None
    assert torch.equal(method.global_decoder(before.tokens), method.global_decoder(after.tokens))
    (full,), (other,) = method.teacher([level]), method.teacher([changed])
    assert not torch.equal(full.tokens, other.tokens)  # the teacher does see them


def test_shuffling_moves_contents_and_leaves_positions() -> None:
    """With blocks that only add the position, output minus position is the shuffled content."""

    class Add(nn.Module):
        def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            self.tokens, self.position = tokens, position
            return tokens + position

    visible, seen, unseen = torch.randn(6, 5, 24), torch.randn(6, 5, 3), torch.randn(6, 7, 3)
    shuffled, plain = (MaskedDecoder(24, depth=1, num_heads=2, drop_path=0.0, shuffle=s) for s in (True, False))
    plain.load_state_dict(shuffled.state_dict())
    for decoder in (shuffled, plain):
        decoder.transformer = Add()  # type: ignore[assignment]
        decoder.everywhere(visible, seen, unseen)
    moved, kept = shuffled.transformer.tokens, plain.transformer.tokens
    assert torch.equal(shuffled.transformer.position, plain.transformer.position)
    origin = torch.cdist(moved, kept).argmin(-1)[:, :]
    assert torch.equal(gather_points(kept, origin), moved)
    places = [[int((moved[b] == visible[b, v]).all(-1).nonzero()) for v in range(5)] for b in range(6)]
    assert len({tuple(row) for row in places}) > 1  # every cloud is dealt out on its own
    assert any(row != [0, 1, 2, 3, 4] for row in places)
    shuffled.eval()
    shuffled.everywhere(visible, seen, unseen)
    assert torch.equal(shuffled.transformer.tokens, kept)


def test_switches_leave_out_their_parts() -> None:
    batch = clouds()
    whole = tiny_distill()
    assert set(whole(batch)) == {"loss", "loss/local", "loss/global"}
    without_global = tiny_distill(global_term=False)
    assert set(without_global(batch)) == {"loss", "loss/local"}
    assert not any(name.startswith("global_decoder") for name, _ in without_global.named_parameters())
    without_local = tiny_distill(local_target="none")
    assert set(without_local(batch)) == {"loss", "loss/global"}
    assert not any(name.startswith(("local_decoder", "predict")) for name, _ in without_local.named_parameters())
    assert tiny_distill(shuffle=False).local_decoder.shuffle is False  # type: ignore[union-attr]
    torch.manual_seed(1)
    single = whole(batch)["loss/local"]
    whole.local_weight = 2.0
    torch.manual_seed(1)
    assert whole(batch)["loss/local"].item() == pytest.approx(2 * single.item(), rel=1e-5)


def test_points_as_target_are_the_points_of_masked_autoencoding() -> None:
    """Same encoder, decoder, head and mask: the local term is Point-MAE's loss."""
    from pointloom.methods.mae import MAE

    method, batch = tiny_distill(local_target="points", global_term=False, shuffle=False), clouds()
    mae = MAE(
        method.encoder, mask_ratio=0.6, mask="random", decoder_depth=1, decoder_heads=2, drop_path=0.0, loss_norm=2,
        small_start=False,
    )  # fmt: skip
    assert method.local_decoder is not None
    mae.decoder, mae.predict = method.local_decoder, method.predict
    losses = []
    for each in (method, mae):
        torch.manual_seed(5)
        losses.append(each(batch)["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_four_clouds_can_be_learned_by_heart() -> None:
    method, batch = tiny_distill(), clouds()
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(100):
        loss = method(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def test_comparison_tells_visible_from_hidden_patches() -> None:
    method = tiny_distill().eval()
    coord = clouds().coord
    likeness = method.compare(coord)
    assert likeness.hidden.sum(1).tolist() == [4] * 4
    assert likeness.cosine.shape == (4, 8)
    assert likeness.cosine.abs().max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="predicts no tokens"):
        tiny_distill(local_target="points").compare(coord)


def test_settings_that_teach_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        tiny_distill(local_target="none", global_term=False)
    with pytest.raises(ValueError, match="unknown local_target 'token'; known: tokens, multi, points, none"):
        tiny_distill(local_target="token")
    with pytest.raises(ValueError, match="local_target multi needs an encoder of several scales"):
        tiny_distill(local_target="multi")
    with pytest.raises(ValueError, match="hides none or all"):
        tiny_distill(mask_ratio=0.05)
    with pytest.raises(ValueError, match="unknown mask 'blok'"):
        tiny_distill(mask="blok")
    with pytest.raises(ValueError, match="must cut the same patches"):
        tiny_distill(tiny_encoder(num_groups=4, class_token=True))
