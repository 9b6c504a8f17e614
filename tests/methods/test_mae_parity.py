"""Our Point-MAE computes what the official one computes: same weights, cloud and mask give the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.methods.mae import MAE
from pointloom.models.point_mae import PointMAEEncoder, point_mae_small
from pointloom.ops import chamfer_distance

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


@pytest.fixture(scope="module")
def small(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "mae_pretrain_small.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def method(small: dict[str, np.ndarray]) -> MAE:
    encoder = PointMAEEncoder(
        num_groups=32, group_size=16, dim=48, depth=2, num_heads=6, embed_hidden=(128, 256),
        drop_path=0.0, class_token=False, init="official", skip_near_origin=1e-3,
    )  # fmt: skip
    method = MAE(
        encoder,
        mask_ratio=0.6,
        mask="random",
        decoder_depth=2,
        decoder_heads=6,
        drop_path=0.0,
        loss_norm=2,
        small_start=False,
    )
    state = {}
    for name, value in method.state_dict().items():
        official = torch.from_numpy(small[f"state/{official_name(name)}"])
        state[name] = official.reshape(value.shape)
    method.load_state_dict(state)
    return method


def test_every_official_weight_has_a_place(method: MAE, small: dict[str, np.ndarray]) -> None:
    ours = {official_name(name) for name in method.state_dict()}
    theirs = {key.removeprefix("state/") for key in small if key.startswith("state/")}
    assert ours == theirs


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_loss_equals_the_official_loss(method: MAE, small: dict[str, np.ndarray], mode: str) -> None:
    method.train(mode == "train")
    groups = method.encoder.group(torch.from_numpy(small["pts"]))
    hidden = torch.from_numpy(small["mask"]).bool()
    predicted, target = method.predict_hidden(groups, hidden)
    loss2 = chamfer_distance(predicted, target, norm=2)
    assert loss2.item() == pytest.approx(float(small[f"{mode}_cdl2/loss"]), rel=1e-5)
    assert chamfer_distance(predicted, target, norm=1).item() == pytest.approx(
        float(small[f"{mode}_cdl1/loss"]), rel=1e-5
    )
    if mode == "train":
        loss2.backward()
        for name, parameter in method.named_parameters():
            expected = torch.from_numpy(small[f"train_cdl2/grad/{official_name(name)}"]).reshape(parameter.shape)
            assert parameter.grad is not None, name
            # biases in front of a batch norm have a gradient of zero in exact arithmetic: only round-off, 1e-6
            assert (parameter.grad - expected).norm() <= 1e-3 * expected.norm() + 1e-5, name


def test_published_size_has_the_published_parameter_count() -> None:
    encoder = point_mae_small()
    assert sum(p.numel() for p in encoder.parameters()) == 21_825_024
    method = MAE(
        encoder,
        mask_ratio=0.6,
        mask="random",
        decoder_depth=4,
        decoder_heads=6,
        drop_path=0.1,
        loss_norm=2,
        small_start=False,
    )
    assert sum(p.numel() for p in method.parameters()) == 29_006_432
