"""A linear SVM after epochs of pre-training: seen in the curve, unnoticed by the training."""

import csv
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.shards import ObjectStore, write_store
from pointloom.errors import ParamsError
from pointloom.methods.mae import MAE
from pointloom.stages import svm_watch as module
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods import MAEParams
from tests.stages.test_alignment import OPTIM, SAMPLING, write_objects


def learn(root: Path, name: str, **changed: Any) -> Path:
    params = MAEParams.model_validate({
        "method": "mae", "encoder": "point_mae_tiny", "encoder_args": {"num_groups": 8, "group_size": 8},
        "mask": "random", "mask_ratio": 0.5, "decoder_depth": 1, "decoder_heads": 6, "decoder_drop_path": 0.1,
        "loss_norm": 2, "small_start": True, "embed_visible_only": False, "splits": ["train"], "epochs": 5,
        "batch_size": 8, "seed": 0, "sampling": SAMPLING, "optim": OPTIM, **changed,
    })  # fmt: skip
    pretrain(
        params, dataset=root / "data", encoder=root / name, metrics=root / f"{name}.json", state=root / "state"
    )  # fmt: skip
    return root / name


def curve(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "curves.csv").open()))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_objects(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_weights_and_losses_are_those_of_training_that_is_not_watched(root: Path) -> None:
    plain, watched = learn(root, "plain"), learn(root, "watched", svm_every=2)
    assert (plain / "encoder.safetensors").read_bytes() == (watched / "encoder.safetensors").read_bytes()
    assert [row["loss"] for row in curve(plain)] == [row["loss"] for row in curve(watched)]
    values = [row["svm_oa"] for row in curve(watched)]
    assert [bool(value) for value in values] == [False, True, False, True, True]  # every second epoch and the last
    assert float(values[-1]) > 33.4  # guessing: 33.3, shapes are easy to tell apart
    assert "svm_oa" not in curve(plain)[0]


def test_watched_training_resumes_bit_by_bit_and_measures_nothing_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(root, "whole", svm_every=1)
    calls, measured, forward, accuracy = 0, 0, MAE.forward, module._accuracy

    def interrupt(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:  # of three steps per epoch
            signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    def count(*args: Any) -> float:
        nonlocal measured
        measured += 1
        return accuracy(*args)

    monkeypatch.setattr(MAE, "forward", interrupt)
    monkeypatch.setattr(module, "_accuracy", count)
    with pytest.raises(KeyboardInterrupt):
        learn(root, "resumed", svm_every=1)
    resumed = learn(root, "resumed", svm_every=1)
    assert measured == 5
    assert (whole / "encoder.safetensors").read_bytes() == (resumed / "encoder.safetensors").read_bytes()
    assert [row["svm_oa"] for row in curve(whole)] == [row["svm_oa"] for row in curve(resumed)]


def test_objects_without_labels_are_refused_before_training(root: Path, tmp_path: Path) -> None:
    from pointloom.data.records import ObjectPoints, ObjectRecord

    points = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    record = ObjectRecord(
        uid="o", path="o", name="o", category="", group="o", split="train", up_axis="z",
        transform=tuple(np.eye(4).ravel()), sha256="o", num_faces=0,
    )  # fmt: skip
    folder = tmp_path / "bare"
    write_store(
        folder / "data", [(record, ObjectPoints(points, points, np.zeros((64, 3), np.uint8)))], num_points=64,
        source="folder", settings={},
    )  # fmt: skip
    assert len(ObjectStore(folder / "data")) == 1
    with pytest.raises(ParamsError, match=r"svm_every: .* needs labelled training and test objects of two classes"):
        learn(folder, "refused", svm_every=1)
