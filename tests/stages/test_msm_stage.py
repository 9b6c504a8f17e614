"""Stage ``pretrain`` with methods ``msm`` and ``msc`` on a few small rooms."""

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.scene_store import write_scenes
from pointloom.data.scenes import Scene
from pointloom.errors import ParamsError
from pointloom.methods.msm import MSM
from pointloom.models.sparse_unet import HUNet
from pointloom.models.sr_unet import SRUNet
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods.msc import MSCParams, build_msc
from pointloom.stages.pretrain_methods.msm import MSMParams, build_msm
from pointloom.train.checkpoint import load_scene_encoder_module

COMMON: dict[str, Any] = {
    "splits": ["train"], "epochs": 2, "repeats": 1, "batch_size": 2, "seed": 0, "encoder_args": {"voxel_size": 0.1},
    "sampling": {"voxel_size": 0.1, "max_points": 300, "block": "none", "augmentation": "indoor"},
    "optim": {"lr": 0.001, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 0, "clip_norm": 3, "schedule": "step",
              "precision": "bf16"},
}  # fmt: skip


def msm(**changed: Any) -> MSMParams:
    values = {
        "method": "msm", "encoder": "hunet_tiny", "mask": "bottom_up", "mask_ratio": 0.4, "mask_shared": False,
        "crop_points": 200, "loss_levels": [1, 2, 3, 4], "target_norm": "none", "momentum": 0.99,
    }  # fmt: skip
    return MSMParams.model_validate(COMMON | values | changed)


def msc(**changed: Any) -> MSCParams:
    values = {
        "method": "msc", "encoder": "sr_unet_tiny", "view_share": 0.6, "mask_ratio": 0.4, "patch_size": 0.3,
        "radius": 0.1, "max_pairs": 64, "temperature": 0.4, "normals": False,
    }  # fmt: skip
    return MSCParams.model_validate(COMMON | values | changed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rooms = []
    for number in range(3):
        rng = np.random.default_rng(number)
        coord = (rng.random((500, 3)) * [2, 1.5, 1]).astype(np.float32)
        coord[::2, 2] = 0
        rooms.append(
            Scene(
                name=f"room{number}", coord=coord, color=(coord * 80).astype(np.uint8), normal=None,
                segment=np.zeros(500, dtype=np.int16), instance=np.zeros(500, dtype=np.int32),
                split="train" if number < 2 else "test",
            )
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("msm") / "data"
    write_scenes(folder, rooms, classes=("thing",), box_classes=(), source="test", settings={})
    return folder


def learn(store: Path, folder: Path, chosen: MSMParams | MSCParams) -> Path:
    pretrain(chosen, dataset=store, encoder=folder / "model", metrics=folder / "metrics.json", state=folder / "state")
    return folder / "model"


def columns(folder: Path) -> set[str]:
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    return set(rows[0])


def test_encoder_curve_and_colours_are_written_and_a_second_run_gives_the_same(store: Path, tmp_path: Path) -> None:
    first, second = (learn(store, tmp_path / run, msm()) for run in ("first", "second"))
    encoder, card = load_scene_encoder_module(first)
    assert isinstance(encoder, HUNet)
    assert (card.method, card.labels, card.num_points) == ("msm", "none", 300)
    assert (first / "encoder.safetensors").read_bytes() == (second / "encoder.safetensors").read_bytes()
    assert {"loss", "loss/level1", "loss/level4", "std/level1", "std/level4"} <= columns(first)
    with np.load(first / "scene_samples.npz", allow_pickle=False) as samples:
        assert samples["pca"].shape == samples["coord"].shape
        assert samples["pca"].dtype == np.uint8


def test_interrupted_pretraining_goes_on_bit_by_bit_with_its_teacher_and_schedule(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = msm(batch_size=1)
    whole = learn(store, tmp_path / "whole", short)
    follow, steps = MSM.after_step, 0

    def interrupted(method: MSM) -> None:
        nonlocal steps
        follow(method)
        steps += 1
        if steps == 3:  # in the middle of the second epoch
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MSM, "after_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn(store, tmp_path / "resumed", short)
    assert not (tmp_path / "resumed" / "model").exists()
    resumed = learn(store, tmp_path / "resumed", short)
    assert steps == 4
    for name in ("encoder.safetensors", "scene_samples.npz"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_contrast_is_learned_with_the_other_network(store: Path, tmp_path: Path) -> None:
    folder = learn(store, tmp_path, msc())
    encoder, card = load_scene_encoder_module(folder)
    assert isinstance(encoder, SRUNet)
    assert card.method == "msc"
    assert {"loss/contrast", "loss/color"} <= columns(folder)


def test_networks_that_a_method_cannot_train_are_refused() -> None:
    with pytest.raises(ParamsError, match="method msm pre-trains hunet encoders, got 'sr_unet_tiny'"):
        build_msm(msm(encoder="sr_unet_tiny"), 1)
    with pytest.raises(ParamsError, match="method msc pre-trains sr_unet and hunet encoders"):
        build_msc(msc(encoder="point_transformer_tiny", encoder_args={}), 1)
