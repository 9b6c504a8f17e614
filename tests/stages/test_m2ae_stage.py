"""Stage ``pretrain`` with method ``m2ae`` on a few generated objects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.errors import ParamsError
from pointloom.models import PointM2AEEncoder
from pointloom.stages.prepare import PrepareParams, prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods import M2AEParams
from pointloom.train.checkpoint import load_encoder_module


def params(**changed: Any) -> M2AEParams:
    values: dict[str, Any] = {
        "method": "m2ae", "encoder": "point_m2ae_tiny", "encoder_args": {"depth": 1}, "mask_ratio": 0.8,
        "multi_scale": True, "decoder_stages": 2, "decoder_depth": 1, "decoder_heads": 6, "decoder_drop_path": 0.0,
        "skip": True, "points_per_token": 16, "loss": "chamfer", "loss_norm": 2, "small_start": True,
        "embed_visible_only": True, "compat": "clean", "splits": ["train"], "epochs": 2, "batch_size": 8, "seed": 0,
        "sampling": {
            "num_points": 128, "pool": 128, "scale_min": 0.8, "scale_max": 1.2, "shift": 0.1, "rotate_degrees": 0,
        },
        "optim": {
            "lr": 1e-3, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 1, "clip_norm": 0, "schedule": "step",
            "precision": "fp32",
        },
    }  # fmt: skip
    return M2AEParams.model_validate(values | changed)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("m2ae")
    (root / "raw").mkdir()
    choices = PrepareParams(
        source="synthetic", num_objects=24, unlabelled_synthetic=0, num_points=128, seed=0, test_fraction=0.4,
        up="auto", max_failure_ratio=0.0, num_workers=1,
    )  # fmt: skip
    prepare(choices, source=root / "raw", dataset=root / "data", metrics=root / "prepare.json", state=root / "state")
    return root / "data"


def learn(store: Path, folder: Path, chosen: M2AEParams) -> Path:
    pretrain(chosen, dataset=store, encoder=folder / "m2ae", metrics=folder / "metrics.json", state=folder / "state")
    return folder / "m2ae"


def test_encoder_curve_and_pictures_are_written_and_a_second_run_gives_the_same(store: Path, tmp_path: Path) -> None:
    first, second = (learn(store, tmp_path / run, params()) for run in ("first", "second"))
    encoder, card = load_encoder_module(first, local_attention=True)
    assert isinstance(encoder, PointM2AEEncoder)
    assert encoder.radii is not None
    assert (card.method, card.labels, card.num_points) == ("m2ae", "none", 128)
    assert (first / "encoder.safetensors").read_bytes() == (second / "encoder.safetensors").read_bytes()
    assert len((first / "curves.csv").read_text().splitlines()) == 3
    with np.load(first / "samples.npz", allow_pickle=False) as samples:
        assert samples["visible"].any(1).all()
        assert samples["reconstruction"].shape[0] == len(samples["uid"])
        assert np.isfinite(samples["reconstruction"]).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"encoder": "pointnet", "encoder_args": {}},
            "method m2ae pre-trains point_m2ae and point_mae encoders, got 'pointnet'",
        ),
        (
            {"encoder": "point_mae_tiny", "encoder_args": {"num_groups": 96}},
            r"pretrain: finer_groups are ever more patches below those of a plain encoder, got \(128, 64\) and \(96,\)",
        ),
        ({"decoder_stages": 4}, "pretrain: decoder_stages must be 1 to 3"),
        ({"mask_ratio": 0.01}, "pretrain: mask_ratio 0.01 of 32 groups hides none or all"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_training(
    store: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        learn(store, tmp_path, params(**changed))
