"""Stage pretrain with MM-3DScene on a few small rooms: files, scenes to look at, the same weights again, errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.scene_store import write_scenes
from pointloom.data.scenes import Scene
from pointloom.errors import ParamsError
from pointloom.stages.pretrain import pretrain
from pointloom.stages.read_params import validate
from pointloom.stages.signature import read_signature
from pointloom.structures import as_module
from pointloom.train.checkpoint import load_scene_encoder_module

PARAMS: dict[str, Any] = {
    "method": "mm3dscene", "encoder": "point_transformer_tiny", "encoder_args": {}, "mask": "preserved",
    "statistic": {"cues": "both", "num_neighbors": 8, "difference": "squared", "normalisation": "scene"},
    "keep_min": 0.4, "keep_max": 0.8, "gap": 0.1, "progressive": True,
    "completion": {"hidden": 8, "grid": [2, 2], "extent": 1.0, "reads_coord": True},
    "reconstruction_weight": 1.0, "consistency_weight": 1.0, "chamfer": "mean", "cd_reduction": "mean",
    "temperature": 0.07, "max_samples": 64, "momentum": 0.99, "splits": ["train"], "epochs": 1, "repeats": 1,
    "batch_size": 2, "seed": 0,
    "sampling": {"voxel_size": 0.05, "max_points": 200, "block": "none", "augmentation": "point_transformer"},
    "optim": {"lr": 0.001, "min_lr": 0, "weight_decay": 0.0005, "warmup_epochs": 0, "clip_norm": 10,
              "schedule": "step", "precision": "fp32"},
}  # fmt: skip


def room(name: str, split: str, seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    coord, num = rng.random((300, 3)).astype(np.float32) * 2, 300
    coord[:150, 2] = 0
    return Scene(
        name=name, coord=coord, color=rng.integers(0, 255, (num, 3)).astype(np.uint8), normal=None,
        segment=np.full(num, -1, dtype=np.int16), instance=np.full(num, -1, dtype=np.int32), split=split,
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("mm3dscene")
    rooms = [room(f"train{i}", "train", i) for i in range(4)] + [room("test", "test", 9)]
    write_scenes(root / "data", rooms, classes=("any",), box_classes=(), source="test", settings={})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


def run(root: Path, name: str, *, data: str = "data", **changed: Any) -> Path:
    params = validate(read_signature("pretrain", pretrain).params, PARAMS | changed, where="test")
    pretrain(
        params, dataset=root / data, encoder=root / "models" / name, metrics=root / f"{name}.json",  # type: ignore[arg-type]
        state=root / "state",
    )  # fmt: skip
    return root / "models" / name


@pytest.fixture(scope="module")
def learned(workspace: Path) -> Path:
    return run(workspace, "first")


def test_encoder_alone_is_written_with_scenes_to_look_at(workspace: Path, learned: Path) -> None:
    module, card = load_scene_encoder_module(learned)
    assert (card.builder, card.method, card.labels) == ("point_transformer_tiny", "mm3dscene", "none")
    assert card.num_parameters == sum(p.numel() for p in as_module(module).parameters())
    assert json.loads((workspace / "first.json").read_text())["metrics"]["loss"] > 0
    with np.load(learned / "scene_samples.npz") as looked:
        num = int(looked["offset"][-1])
        assert looked["coord"].shape == (num, 3)
        assert looked["statistic"].shape == looked["visible"].shape == (num,)
        assert len(looked["reconstruction"]) == 4 * looked["visible"].sum()


def test_scans_without_a_split_are_enough(workspace: Path) -> None:
    scans = [room(f"scan{i}", "pretrain", i) for i in range(3)]
    write_scenes(workspace / "scans", scans, classes=(), box_classes=(), source="test", settings={})
    with np.load(run(workspace, "scans", data="scans", splits=["pretrain"]) / "scene_samples.npz") as looked:
        assert set(looked["name"].tolist()) <= {scan.name for scan in scans}


def test_same_seed_gives_the_same_weights(workspace: Path, learned: Path) -> None:
    first, again, other = (
        load_scene_encoder_module(folder)[1].weights_sha256
        for folder in (learned, run(workspace, "again"), run(workspace, "other", seed=1))
    )
    assert first == again != other


def test_values_that_do_not_fit_are_named(workspace: Path) -> None:
    with pytest.raises(ParamsError, match=r"keep_min 0\.9 must not exceed keep_max 0\.8"):
        run(workspace, "bad", keep_min=0.9)
    with pytest.raises(ParamsError, match="leaves the scene"):
        run(workspace, "bad", gap=0.5)
    with pytest.raises(ParamsError, match=r"encoder: input should be 'detr', .*got 'point_mae_tiny'"):
        run(workspace, "bad", encoder="point_mae_tiny")
