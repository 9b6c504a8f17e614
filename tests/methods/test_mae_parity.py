"""Our Point-MAE computes what the official one computes: same weights, cloud and mask give the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pointloom.methods.mae import MAE
from pointloom.models.point_mae import PointMAEEncoder, point_mae_small
from pointloom.ops import chamfer_distance, gather_points
from pointloom.train.optim import parameter_groups
from tests.methods.m2ae_official import formula

OFFICIAL_NAMES = {
    "encoder.patch_embed.first": "MAE_encoder.encoder.first_conv.0",
    "encoder.patch_embed.norm1": "MAE_encoder.encoder.first_conv.1",
    "encoder.patch_embed.second": "MAE_encoder.encoder.first_conv.3",
    "encoder.patch_embed.third": "MAE_encoder.encoder.second_conv.0",
    "encoder.patch_embed.norm2": "MAE_encoder.encoder.second_conv.1",
    "encoder.patch_embed.fourth": "MAE_encoder.encoder.second_conv.3",
    "encoder.position_embed": "MAE_encoder.pos_embed",
    "encoder.transformer.blocks": "MAE_encoder.blocks.blocks",
    "encoder.norm": "MAE_encoder.norm",
    "decoder.mask_token": "mask_token",
    "decoder.position_embed": "decoder_pos_embed",
    "decoder.transformer.blocks": "MAE_decoder.blocks",
    "decoder.norm": "MAE_decoder.norm",
    "predict": "increase_dim.0",
}


def official_name(name: str) -> str:
    ours = max((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), key=len)
    return OFFICIAL_NAMES[ours] + name[len(ours) :]


def build(size: str) -> MAE:
    """The model of the reference file, with its weights."""
    if size == "small":
        encoder = PointMAEEncoder(
            num_groups=32, group_size=16, dim=48, depth=2, num_heads=6, embed_hidden=(128, 256),
            drop_path=0.0, class_token=False, init="official", skip_near_origin=1e-3,
        )  # fmt: skip
    else:
        encoder = point_mae_small(drop_path=0.0, skip_near_origin=1e-3)
    made = fresh_method(encoder, depth=2 if size == "small" else 4)
    state = {name: torch.from_numpy(formula(official_name(name), tuple(value.shape))) if value.is_floating_point()
             else value for name, value in made.state_dict().items()}  # fmt: skip
    made.load_state_dict(state)
    return made


def fresh_method(encoder: PointMAEEncoder, *, depth: int) -> MAE:
    return MAE(
        encoder, mask_ratio=0.6, mask="random", decoder_depth=depth, decoder_heads=6, drop_path=0.0, loss_norm=2,
        small_start=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["small", "full"])
def reference(request: pytest.FixtureRequest, golden: Path) -> tuple[str, dict[str, np.ndarray]]:
    with np.load(golden / f"mae_pretrain_{request.param}.npz", allow_pickle=False) as file:
        return request.param, {key: file[key] for key in file.files}


def assert_close(ours: Tensor, theirs: np.ndarray) -> None:
    """Float32 parity: 1e-4 of the tensor's scale."""
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_every_official_weight_has_a_place(golden: Path) -> None:
    with np.load(golden / "mae_pretrain_small.npz", allow_pickle=False) as file:
        theirs = {key.removeprefix("state/"): file[key] for key in file.files if key.startswith("state/")}
    ours = {official_name(name): value for name, value in build("small").state_dict().items()}
    assert set(ours) == set(theirs)
    for name, value in ours.items():  # the formula is that of the reference files
        assert np.array_equal(value.numpy(), theirs[name].reshape(value.shape)), name


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_patches_tokens_reconstructions_and_losses_equal_the_official_ones(
    reference: tuple[str, dict[str, np.ndarray]], mode: str
) -> None:
    size, theirs = reference
    method, key = build(size).train(mode == "train"), f"{mode}_cdl2"
    coord, hidden = torch.from_numpy(theirs["pts"]), torch.from_numpy(theirs["mask"]).bool()
    (level,) = groups = method.encoder.group(coord)
    assert torch.equal(level.centers, gather_points(coord, torch.from_numpy(theirs["fps_idx"]).long()))
    assert np.array_equal(level.index.numpy(), theirs["knn_idx"])
    assert_close(level.neighborhood, theirs["neigh"])
    with torch.no_grad():
        assert_close(method.encoder.patch_embed(level.neighborhood), theirs[f"{key}/tokens"])
        (visible,) = method.encoder(groups, [hidden])
        assert_close(visible.tokens, theirs[f"{key}/enc_vis"])
        centers = level.centers[hidden].view(len(coord), -1, 3)
        assert_close(method.decoder(visible.tokens, visible.centers, centers), theirs[f"{key}/dec"])
        predicted, target = method.predict_hidden(groups, hidden)
    assert_close(predicted, theirs[f"{key}/rec_points"])
    assert_close(target, theirs["gt_points"])
    for norm in (1, 2):
        found = chamfer_distance(predicted, target, norm=norm).item()
        assert found == pytest.approx(float(theirs[f"{mode}_cdl{norm}/loss"]), rel=1e-5)


@pytest.mark.parametrize("norm", [1, 2])
def test_gradients_equal_the_official_ones(reference: tuple[str, dict[str, np.ndarray]], norm: int) -> None:
    size, theirs = reference
    method, key = build(size), f"train_cdl{norm}"
    groups = method.encoder.group(torch.from_numpy(theirs["pts"]))
    predicted, target = method.predict_hidden(groups, torch.from_numpy(theirs["mask"]).bool())
    chamfer_distance(predicted, target, norm=norm).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        # biases in front of a batch norm have a gradient of zero in exact arithmetic: only round-off, 1e-6
        if f"{key}/grad/{official_name(name)}" in theirs:
            expected = torch.from_numpy(theirs[f"{key}/grad/{official_name(name)}"]).reshape(parameter.shape)
            assert (parameter.grad - expected).norm() <= 1e-3 * expected.norm() + 1e-5, name
        else:
            norm_there = float(theirs[f"{key}/gradnorm/{official_name(name)}"])
            assert parameter.grad.norm().item() == pytest.approx(norm_there, rel=1e-3, abs=1e-5), name


def test_weight_decay_spares_what_the_official_rule_spares(golden: Path) -> None:
    with np.load(golden / "mae_pretrain_small.npz", allow_pickle=False) as file:
        ndim = {key.removeprefix("state/"): file[key].ndim for key in file.files if key.startswith("state/")}
    method = build("small")
    names = {id(parameter): official_name(name) for name, parameter in method.named_parameters()}
    plain, decayed = parameter_groups(method, weight_decay=0.05)
    spared = {name for name in names.values() if ndim[name] == 1 or name.endswith(".bias") or "token" in name}
    assert {names[id(p)] for p in plain["params"]} == spared  # type: ignore[attr-defined]
    assert {names[id(p)] for p in decayed["params"]} == set(names.values()) - spared  # type: ignore[attr-defined]


def test_fresh_weights_are_drawn_as_the_official_ones(golden: Path) -> None:
    """Mean and spread of every tensor at the published size; small tensors vary more."""
    with np.load(golden / "mae_pretrain_full.npz", allow_pickle=False) as file:
        theirs = {key: file[key] for key in file.files if key.startswith("init_stats/")}
    torch.manual_seed(0)
    for name, value in fresh_method(point_mae_small(), depth=4).state_dict().items():
        if value.is_floating_point():
            mean, std, low, _ = theirs[f"init_stats/{official_name(name)}"]
            spread = 5 / value.numel() ** 0.5
            if low == -2:  # one weight of the file was drawn at the border of the truncated normal
                std = (std**2 - low**2 / value.numel()) ** 0.5
            assert value.mean().item() == pytest.approx(mean, abs=2 * std * spread + 1e-7), name
            assert value.std(correction=0).item() == pytest.approx(std, rel=spread, abs=1e-7), name


def test_published_size_has_the_published_parameter_count() -> None:
    encoder = point_mae_small()
    assert sum(p.numel() for p in encoder.parameters()) == 21_825_024
    assert sum(p.numel() for p in fresh_method(encoder, depth=4).parameters()) == 29_006_432
