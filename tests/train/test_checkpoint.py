"""Encoders on disk: strict, complete, refused when anything is off."""

import json
from pathlib import Path

import pytest
import torch

from pointloom.errors import CheckpointError
from pointloom.models import build_encoder
from pointloom.train.checkpoint import CARD, WEIGHTS, load_encoder_module, read_card, save_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_encoder(
        tmp_path / "mae",
        build_encoder("point_mae_tiny"),
        builder="point_mae_tiny",
        builder_args={},
        method="mae",
        labels="none",
        num_points=64,
        data_digest="abc",
        params={"epochs": 1},
    )
    return tmp_path / "mae"


def test_saved_encoder_comes_back_equal(folder: Path) -> None:
    torch.manual_seed(0)
    original = build_encoder("point_mae_tiny")
    loaded, card = load_encoder_module(folder)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in original.state_dict().items())
    assert (card.method, card.labels, card.data_digest, card.up_axis) == ("mae", "none", "abc", "z")
    assert card.num_parameters == sum(p.numel() for p in original.parameters())
    assert "self-supervised" in (folder / "README.md").read_text()


def test_new_class_token_must_be_asked_for_and_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="pointloom")
    with pytest.raises(CheckpointError, match=r"missing: \['cls_position', 'cls_token'\]"):
        load_encoder_module(folder, class_token=True)
    encoder, _ = load_encoder_module(folder, allow_missing=("cls_token", "cls_position"), class_token=True)
    total = len(encoder.state_dict())
    assert f"{total - 2} of {total} weights loaded, new: cls_position, cls_token" in caplog.text


def test_folder_without_encoder_says_what_to_give(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"holds no encoder: encoder.json is missing; give a folder of models/"):
        read_card(empty)
    with pytest.raises(CheckpointError, match=rf"there is no such folder; .*there are {folder.name}\)"):
        read_card(folder.with_name("mea"))


def test_damaged_and_exchanged_files_are_refused(folder: Path) -> None:
    good = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_encoder_module(folder)
    (folder / WEIGHTS).write_bytes(good[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="is not the file"):
        load_encoder_module(folder)
    (folder / WEIGHTS).write_bytes(good)
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"format": 2}))
    with pytest.raises(CheckpointError, match="format 2"):
        read_card(folder)
    for junk in (b"{", b"[]", b"\xff\xfe\x00"):
        (folder / CARD).write_bytes(junk)
        with pytest.raises(CheckpointError, match="damaged"):
            read_card(folder)


def test_weights_of_another_shape_are_listed(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"builder": "pointnet"}))
    with pytest.raises(CheckpointError, match=r"0 of .* keys match"):
        load_encoder_module(folder)
