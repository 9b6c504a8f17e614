"""Released weights of Masked Scene Modeling become encoders and go back, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom import models
from pointloom.convert import convert_checkpoint, describe, export_encoder
from pointloom.errors import CheckpointError
from pointloom.models.official_names import LAYOUTS
from pointloom.models.sparse_unet import HUNet, hunet_large
from pointloom.train.checkpoint import load_scene_encoder_module

State = dict[str, torch.Tensor]


def small_hunet(*, sampling: str = "trilinear") -> HUNet:
    return HUNet(
        voxel_size=0.02, dims=(8, 16, 16, 24, 32), decoder_dims=(8, 16, 16, 24, 32), num_heads=(1, 2, 2, 2, 4),
        convolutions=(1, 1, 1, 1, 1), attentions=(0, 0, 0, 2, 2), window=64, drop_path=0.0, attention_dropout=0.0,
        sampling=sampling,
    )  # fmt: skip


@pytest.fixture(scope="module")
def official(golden: Path) -> State:
    with np.load(golden / "msm_small.npz", allow_pickle=False) as file:
        states = [key for key in file.files if key.startswith("state/")]
        return {key.removeprefix("state/encoder."): torch.from_numpy(file[key]) for key in states}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published size has 270 MB; names and forms are the same."""
    monkeypatch.setitem(models.SCENE_ENCODERS, "hunet_large", small_hunet)


def write(path: Path, state: State, *, prefix: str = "module.student.") -> Path:
    others = {"module.teacher.stem.weight": torch.zeros(3), "module.mask_token": torch.zeros(2)}
    torch.save({"epoch": 7, "state_dict": {prefix + name: value for name, value in state.items()} | others}, path)
    return path


def test_released_weights_come_and_go_bit_by_bit(official: State, tmp_path: Path) -> None:
    made = convert_checkpoint(write(tmp_path / "msm.pth", official), tmp_path / "encoder", layout="msm")
    assert made.matched == made.expected == len(official)
    assert made.left_out == {"mask_token": 1, "teacher": 1}
    assert "teacher (1)" in describe(made)
    encoder, card = load_scene_encoder_module(tmp_path / "encoder")
    assert (card.method, card.labels, card.builder, card.builder_args) == (
        "msm", "none", "hunet_large", {"sampling": "legacy"},
    )  # fmt: skip
    assert isinstance(encoder, HUNet)
    assert encoder.sampling == "legacy"
    assert export_encoder(tmp_path / "encoder", tmp_path / "back.pth", layout="msm") == len(official)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert set(back) == {"module.student." + name for name in official}
    for name, value in official.items():
        assert torch.equal(back["module.student." + name], value), name


def test_missing_weights_and_another_axis_are_refused(official: State, tmp_path: Path) -> None:
    lacking = {name: value for name, value in official.items() if name != "decoder_init_norm.norm.scale"}
    with pytest.raises(CheckpointError, match=r"missing: decoder_init_norm\.norm\.scale; left over: none"):
        convert_checkpoint(write(tmp_path / "msm.pth", lacking), tmp_path / "encoder", layout="msm")
    with pytest.raises(CheckpointError, match="trained with z up and its weights cannot be turned"):
        convert_checkpoint(write(tmp_path / "msm.pth", official), tmp_path / "encoder", layout="msm", up="y")
    with pytest.raises(CheckpointError, match="0 of 160 weights belong to the encoder"):
        convert_checkpoint(
            write(tmp_path / "msm.pth", official, prefix="backbone."), tmp_path / "encoder", layout="msm"
        )
    assert not (tmp_path / "encoder").exists()


def test_every_weight_of_the_published_size_has_an_official_name() -> None:
    with torch.device("meta"):
        names = [LAYOUTS["msm"].official_name(name) for name in hunet_large().state_dict()]
    assert len(set(names)) == len(names)
    assert {"resnet_dec.4.1.conv2.weight", "att_enc.4.2.linear_in.weight", "up.3.1.bias", "skip.0.gamma"} <= set(names)
