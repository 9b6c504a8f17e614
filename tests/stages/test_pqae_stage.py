"""Stage ``pretrain`` with method ``pqae`` on a few generated objects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.errors import ParamsError
from pointloom.stages.prepare import PrepareParams, prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods import PQAEParams
from pointloom.train.checkpoint import load_encoder_module


def params(**changed: Any) -> PQAEParams:
    values: dict[str, Any] = {
        "method": "pqae", "encoder": "point_mae_tiny",
        "encoder_args": {"num_groups": 8, "group_size": 8, "class_token": True}, "min_crop": 0.6, "frame": "box",
        "rotate": True, "position": "relative", "query": True, "decoder_depth": 1, "decoder_heads": 6,
        "decoder_drop_path": 0.0, "loss": "cdl2", "compat": "clean", "small_start": True,
        "splits": ["train"], "epochs": 2, "batch_size": 8,
        "seed": 0,
        "sampling": {
            "num_points": 64, "pool": 128, "scale_min": 1, "scale_max": 1, "shift": 0, "rotate_degrees": 180,
        },
        "optim": {
            "lr": 1e-3, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 1, "clip_norm": 0, "schedule": "step",
            "precision": "fp32",
        },
    }  # fmt: skip
    return PQAEParams.model_validate(values | changed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pqae")
    (root / "raw").mkdir()
    choices = PrepareParams(
        source="synthetic", num_objects=24, unlabelled_synthetic=0, num_points=128, seed=0, test_fraction=0.4,
        up="auto", max_failure_ratio=0.0, num_workers=1,
    )  # fmt: skip
    prepare(choices, source=root / "raw", dataset=root / "data", metrics=root / "prepare.json", state=root / "state")
    return root / "data"


def learn(store: Path, folder: Path, chosen: PQAEParams) -> Path:
    pretrain(
        chosen, dataset=store, encoder=folder / "pqae", metrics=folder / "metrics.json", state=folder / "state"
    )  # fmt: skip
    return folder / "pqae"


def test_encoder_curve_and_pictures_are_written_and_a_second_run_gives_the_same(store: Path, tmp_path: Path) -> None:
    first, second = (learn(store, tmp_path / run, params()) for run in ("first", "second"))
    encoder, card = load_encoder_module(first)
    assert (card.method, card.labels, card.num_points) == ("pqae", "none", 64)
    assert {"cls_token", "cls_position"} <= set(encoder.state_dict())  # learned: fine-tuning starts from them
    assert (first / "encoder.safetensors").read_bytes() == (second / "encoder.safetensors").read_bytes()
    header, *rows = (first / "curves.csv").read_text().splitlines()
    assert {"loss", "loss/first", "loss/second"} <= set(header.split(","))
    assert len(rows) == 2
    with np.load(first / "samples.npz") as samples:
        assert samples["reconstruction"].shape[1:] == (64, 3)
        share = samples["visible"].mean(1)
        assert (share >= 0.59).all()
        assert len(np.unique(share)) == 1


def test_bad_combinations_are_refused_before_training(store: Path, tmp_path: Path) -> None:
    few = params(encoder_args={"num_groups": 48, "group_size": 8, "class_token": True})
    with pytest.raises(ParamsError, match=r"only 38 points \(min_crop 0.6 of 64\), the encoder needs 48"):
        learn(store, tmp_path, few)
    with pytest.raises(ParamsError, match="pretrain: position absolute needs both views in one frame"):
        learn(store, tmp_path, params(position="absolute"))
    with pytest.raises(ParamsError, match="pre-trains point_mae encoders, got 'pointnet'"):
        learn(store, tmp_path, params(encoder="pointnet", encoder_args={}))
