"""What masked autoencoding promises, on tiny clouds."""

import pytest
import torch

from pointloom.methods.mae import MAE
from pointloom.methods.masking import MASKS, block_mask, random_mask
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.structures import Groups, PointBatch


def tiny_encoder(**changed: object) -> PointMAEEncoder:
    arguments: dict[str, object] = {
        "num_groups": 8, "group_size": 8, "dim": 24, "depth": 2, "num_heads": 2, "embed_hidden": (16, 32),
        "drop_path": 0.0, "class_token": False, "init": "xavier", "skip_near_origin": 0.0,
    }  # fmt: skip
    return PointMAEEncoder(**(arguments | changed))  # type: ignore[arg-type]


def tiny_method(encoder: PointMAEEncoder | None = None) -> MAE:
    return MAE(
        encoder or tiny_encoder(), mask_ratio=0.6, mask="random", decoder_depth=1, decoder_heads=2, drop_path=0.0,
        loss_norm=2, small_start=True,
    )  # fmt: skip


def clouds(num: int = 4) -> PointBatch:
    coord = torch.nn.functional.normalize(torch.randn(num, 64, 3), dim=-1) * torch.rand(num, 1, 3)
    return PointBatch(coord=coord, label=torch.zeros(num, dtype=torch.long), row=torch.arange(num))


@pytest.mark.parametrize("name", sorted(MASKS))
def test_every_cloud_hides_the_same_number_of_patches(name: str) -> None:
    mask = MASKS[name](torch.randn(5, 64, 3), ratio=0.6)
    assert mask.sum(1).tolist() == [38] * 5


def test_block_mask_hides_the_patches_nearest_to_one_of_them() -> None:
    centers = torch.arange(10.0).view(1, 10, 1) * torch.tensor([1.0, 0.0, 0.0])
    hidden = block_mask(centers, ratio=0.4)[0].nonzero().flatten()
    assert hidden.max() - hidden.min() == 3


def test_random_masks_differ_between_clouds_and_steps() -> None:
    centers = torch.randn(2, 64, 3)
    first, second = random_mask(centers, ratio=0.6), random_mask(centers, ratio=0.6)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_every_parameter_gets_a_finite_gradient() -> None:
    method = tiny_method()
    method(clouds())["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("visible_only", [False, True])
def test_hidden_points_cannot_change_visible_tokens(visible_only: bool) -> None:
    encoder = tiny_encoder().eval()
    encoder.embed_visible_only = visible_only
    (level,) = encoder.group(clouds().coord)
    mask = random_mask(level.centers, ratio=0.6)
    (before,) = encoder([level], [mask])
    noise = torch.randn_like(level.neighborhood) * mask[..., None, None]
    (after,) = encoder([Groups(level.centers, level.neighborhood + noise, level.index)], [mask])
    assert torch.equal(before.tokens, after.tokens)
    assert before.tokens.shape == (4, 4, 24)


def test_visible_only_embedding_gives_the_same_tokens_outside_of_training() -> None:
    encoder = tiny_encoder().eval()
    groups = encoder.group(clouds().coord)
    mask = random_mask(groups[0].centers, ratio=0.6)
    (everything,) = encoder(groups, [mask])
    encoder.embed_visible_only = True
    (visible,) = encoder(groups, [mask])
    assert torch.allclose(everything.tokens, visible.tokens, atol=1e-6)


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


def test_small_start_begins_near_the_scale_of_a_patch() -> None:
    torch.manual_seed(0)
    method, batch = tiny_method(), clouds()
    predicted, target = method.predict_hidden(
        groups := method.encoder.group(batch.coord), random_mask(groups[0].centers, ratio=0.6)
    )
    assert predicted.std() < 2 * target.std()


def test_reconstruction_puts_points_where_the_hidden_patches_are() -> None:
    method = tiny_method().eval()
    coord = clouds().coord
    made = method.reconstruct(coord)
    assert (made.visible.sum(1) <= 4 * 8).all()  # four patches of eight, which overlap
    assert made.visible.any(1).all()
    assert made.points.shape == (4, 4 * 8, 3)


def test_masks_that_hide_nothing_or_everything_are_refused() -> None:
    with pytest.raises(ValueError, match="hides none or all"):
        MAE(
            tiny_encoder(), mask_ratio=0.05, mask="random", decoder_depth=1, decoder_heads=2, drop_path=0.0,
            loss_norm=2, small_start=True,
        )  # fmt: skip
    with pytest.raises(ValueError, match="unknown mask 'blok'; known: block, random"):
        MAE(
            tiny_encoder(), mask_ratio=0.6, mask="blok", decoder_depth=1, decoder_heads=2, drop_path=0.0, loss_norm=2,
            small_start=True,
        )  # fmt: skip
