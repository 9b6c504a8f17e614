"""What multi-scale masked autoencoding promises, on tiny clouds."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointloom.methods.m2ae import M2AE
from pointloom.methods.masking import multi_scale_mask, random_mask
from pointloom.models.point_m2ae import PointM2AEEncoder
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.ops import chamfer_distance, earth_movers_distance
from pointloom.structures import Groups, PointBatch, PretrainingMethod


def tiny_encoder(**changed: Any) -> PointM2AEEncoder:
    values: dict[str, Any] = {
        "num_groups": (32, 16, 10), "group_sizes": (8, 4, 4), "dims": (8, 16, 32), "depth": 2, "num_heads": 2,
        "embed_hidden": (8, 16), "drop_path": 0.0, "radii": None, "pooling": "sum", "init": "xavier",
        "skip_near_origin": 0.0,
    }  # fmt: skip
    return PointM2AEEncoder(**(values | changed))


def tiny_method(encoder: PointM2AEEncoder | PointMAEEncoder | None = None, **changed: Any) -> M2AE:
    values: dict[str, Any] = {
        "mask_ratio": 0.8, "multi_scale": True, "decoder_stages": 2, "decoder_depth": 1, "decoder_heads": 2,
        "drop_path": 0.0, "skip": True, "points_per_token": 8, "loss": "chamfer", "loss_norm": 2, "small_start": True,
        "compat": "clean",
    }  # fmt: skip
    return M2AE(encoder or tiny_encoder(), **(values | changed))


def clouds(num: int = 4) -> PointBatch:
    coord = F.normalize(torch.randn(num, 96, 3), dim=-1) * torch.rand(num, 1, 3)
    return PointBatch(coord=coord, label=torch.zeros(num, dtype=torch.long), row=torch.arange(num))


def test_visible_patches_of_a_scale_are_the_members_of_visible_patches_of_the_next() -> None:
    groups = tiny_encoder().group(clouds().coord)
    masks = multi_scale_mask(groups, random_mask(groups[-1].centers, ratio=0.8))
    assert [mask.shape[1] for mask in masks] == [32, 16, 10]
    assert (~masks[-1]).sum(1).tolist() == [2] * 4
    for finer, coarser, level in zip(masks[:-1], masks[1:], groups[1:], strict=True):
        for cloud in range(4):
            members = {int(i) for g in np.flatnonzero(~coarser[cloud]) for i in level.index[cloud, g]}
            assert set(np.flatnonzero(~finer[cloud]).tolist()) == members


def test_share_of_visible_patches_on_a_sphere_is_the_published_one() -> None:
    """With 80 % hidden at the coarsest scale, about 300 of 512 and 91 of 256 patches are visible at the finer ones."""
    encoder = tiny_encoder(num_groups=(512, 256, 64), group_sizes=(16, 8, 8))
    groups = encoder.group(F.normalize(torch.randn(8, 2048, 3), dim=-1))
    fine, middle, top = multi_scale_mask(groups, random_mask(groups[-1].centers, ratio=0.8))
    assert top.sum(1).tolist() == [51] * 8
    assert (~middle).sum(1).float().mean().item() == pytest.approx(91.5, abs=5)
    assert (~fine).sum(1).float().mean().item() == pytest.approx(299, abs=15)


@pytest.mark.parametrize("visible_only", [False, True])
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_hidden_points_cannot_change_visible_tokens_at_any_scale(visible_only: bool, scale: int) -> None:
    encoder = tiny_encoder().eval()
    encoder.embed_visible_only = visible_only
    groups = encoder.group(clouds().coord)
    masks = multi_scale_mask(groups, random_mask(groups[-1].centers, ratio=0.8))
    before = encoder(groups, masks)[scale]
    noisy = [
        Groups(
            centers=level.centers + torch.randn_like(level.centers) * hidden[..., None],
            neighborhood=level.neighborhood + torch.randn_like(level.neighborhood) * hidden[..., None, None],
            index=level.index,
        )
        for level, hidden in zip(groups, masks, strict=True)
    ]
    after = encoder(noisy, masks)[scale]
    valid = torch.ones(before.tokens.shape[:2], dtype=torch.bool) if before.valid is None else before.valid
    assert torch.equal(before.tokens[valid], after.tokens[valid])
    assert valid.sum(1).tolist() == (~masks[scale]).sum(1).tolist()


def test_official_padding_is_seen_by_tokens_near_the_origin_and_clean_padding_is_not() -> None:
    """A cloud's tokens depend on the other clouds of the batch only if padding is seen."""
    encoder = tiny_encoder().eval()
    groups = encoder.group(clouds().coord * 0.2)
    hidden = random_mask(groups[-1].centers, ratio=0.8)
    masks = multi_scale_mask(groups, hidden)
    fewest = int((~masks[0]).sum(1).argmin())
    alone = [Groups(g.centers[[fewest]], g.neighborhood[[fewest]], g.index[[fewest]]) for g in groups]
    for leaky in (False, True):
        encoder.leaky_padding = leaky
        together = encoder(groups, masks)[0]
        assert together.valid is not None
        ours = together.tokens[fewest][together.valid[fewest]]
        (other,) = encoder(alone, [mask[[fewest]] for mask in masks])[0].tokens
        assert torch.allclose(ours, other, atol=1e-5) != leaky


def test_visible_only_embedding_gives_the_same_tokens_outside_of_training() -> None:
    encoder = tiny_encoder().eval()
    groups = encoder.group(clouds().coord)
    masks = multi_scale_mask(groups, random_mask(groups[-1].centers, ratio=0.8))
    everything = encoder(groups, masks)
    encoder.embed_visible_only = True
    for ours, theirs in zip(encoder(groups, masks), everything, strict=True):
        valid = torch.ones(ours.tokens.shape[:2], dtype=torch.bool) if ours.valid is None else ours.valid
        assert torch.allclose(ours.tokens[valid], theirs.tokens[valid], atol=1e-5)


def plain_encoder_method(**changed: Any) -> M2AE:
    """Below ten patches of points, scales of 16 and 32 patches."""
    encoder = PointMAEEncoder(
        num_groups=10, group_size=12, dim=32, depth=2, num_heads=2, embed_hidden=(8, 16), drop_path=0.0,
        class_token=False, init="xavier", skip_near_origin=0.0,
    )  # fmt: skip
    return tiny_method(encoder, finer_groups=(32, 16), **changed)


def test_plain_encoder_sees_the_coarsest_visible_patches_and_the_scale_below_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, batch = plain_encoder_method(), clouds()
    groups = method.group(batch.coord)
    masks = method.hide(groups)
    assert [level.centers.shape[1] for level in groups] == [32, 16, 10, 10]
    assert torch.equal(groups[2].centers, groups[3].centers)
    assert groups[3].neighborhood.shape[2] == 12
    tokens = method.encoder(groups[3:], masks[2:])
    assert tokens[0].tokens.shape[1] == 2  # of ten patches 80 % are hidden
    monkeypatch.setattr(method.encoder, "forward", lambda *_: tokens)
    predicted, target = method.predict_hidden(groups, masks)
    decoded = method.decoder(tokens, groups[:3], masks)[-1]
    assert decoded.shape[1:] == (16, 16)  # the scale below has more patches, half as wide
    assert torch.equal(predicted, method.predict(decoded[masks[1]]).unflatten(-1, (-1, 3)))
    assert torch.equal(target, groups[1].neighborhood[masks[1]])
    assert method.decoder.skip is False


def test_every_parameter_below_a_plain_encoder_gets_a_gradient_and_reconstruction_shows_what_it_saw() -> None:
    method, batch = plain_encoder_method(), clouds()
    method(batch)["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    torch.manual_seed(3)
    made = method.reconstruct(batch.coord)
    torch.manual_seed(3)
    groups = method.group(batch.coord)
    hidden = method.hide(groups)[-1]
    for cloud in range(4):
        seen = {int(i) for g in np.flatnonzero(~hidden[cloud]) for i in groups[3].index[cloud, g]}
        assert set(np.flatnonzero(made.visible[cloud]).tolist()) == seen


@pytest.mark.parametrize("finer", [(), (16, 32), (16, 8)])
def test_finer_scales_belong_below_a_plain_encoder_alone(finer: tuple[int, ...]) -> None:
    plain = plain_encoder_method().encoder
    with pytest.raises(ValueError, match="finer_groups are ever more patches below those of a plain encoder"):
        tiny_method(plain, finer_groups=finer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finer_groups are ever more patches below those of a plain encoder"):
        tiny_method(finer_groups=(64,))


@pytest.mark.parametrize(
    "changed", [{}, {"skip": False}, {"decoder_stages": 1}, {"decoder_stages": 3}, {"multi_scale": False}]
)
def test_every_trainable_parameter_gets_a_finite_gradient(changed: dict[str, Any]) -> None:
    method = tiny_method(**changed)
    method(clouds())["loss"].backward()
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            assert name.startswith("encoder.norms"), name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(("stages", "k"), [(1, 4), (2, 4), (3, 8)])
def test_members_of_the_hidden_patches_of_the_last_decoded_scale_are_predicted(stages: int, k: int) -> None:
    method = tiny_method(decoder_stages=stages)
    groups = method.encoder.group(clouds().coord)
    masks = method.hide(groups)
    predicted, target = method.predict_hidden(groups, masks)
    number = int(masks[3 - stages].sum())
    assert predicted.shape == (number, 8, 3)
    assert target.shape == (number, k, 3)
    first = masks[3 - stages].nonzero()[0]
    assert torch.equal(target[0], groups[3 - stages].neighborhood[first[0], first[1]])


@pytest.mark.slow
def test_four_clouds_can_be_learned_by_heart() -> None:
    method, batch = tiny_method(), clouds()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = method(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_reconstruction_lies_around_the_hidden_patches_and_shows_what_was_seen() -> None:
    method = tiny_method().eval()
    assert isinstance(method, PretrainingMethod)
    coord = clouds().coord
    made = method.reconstruct(coord)
    assert made.visible.shape == coord.shape[:2]
    assert made.visible.any(1).all()
    assert not made.visible.all(1).any()
    assert made.points.shape[1] % 8 == 0
    assert torch.cdist(made.points, coord).amin(-1).max() < 1.0  # small start: predictions lie near their centres


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mask_ratio": 0.05}, "mask_ratio 0.05 of 10 groups hides none or all"),
        ({"decoder_stages": 4}, "decoder_stages must be 1 to 3, the scales of the encoder, got 4"),
        ({"loss": "edm"}, "unknown loss 'edm'; known: chamfer, emd, chamfer"),
        ({"loss": "emd"}, "points_per_token must be 4, the members of a predicted patch, got 8"),
        ({"compat": "officially"}, "unknown compat 'officially'; known: official, clean"),
    ],
)
def test_values_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_method(**changed)


def test_class_token_is_refused_since_no_prediction_reads_it() -> None:
    with pytest.raises(ValueError, match="nothing here trains a class token; add pooling 'class_token' in fine-tuning"):
        tiny_method(tiny_encoder(pooling="class_token"))


def test_losses_of_table_13_are_their_distances_and_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = tiny_method(points_per_token=4).eval(), clouds()
    groups = method.encoder.group(batch.coord)
    masks = method.hide(groups)
    monkeypatch.setattr(method, "hide", lambda _groups: masks)
    predicted, target = method.predict_hidden(groups, masks)
    moved = earth_movers_distance(predicted, target)
    for norm in (1, 2):
        chamfer = chamfer_distance(predicted, target, norm=norm)
        for loss, expected in (("chamfer", chamfer), ("emd", moved), ("chamfer+emd", chamfer + moved)):
            method.loss, method.loss_norm = loss, norm
            assert method(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
