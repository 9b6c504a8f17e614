"""Task scene_segmentation of stage finetune on a few small rooms: files, subsets, numbers, clear errors."""

import copy
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointloom.data.scene_store import SceneStore, write_scenes
from pointloom.data.scenes import Scene
from pointloom.errors import CheckpointError, DataError, ParamsError
from pointloom.models import build_encoder, build_scene_encoder
from pointloom.stages.finetune import finetune
from pointloom.stages.read_params import validate
from pointloom.stages.scene_training import labelled_scenes
from pointloom.stages.signature import read_signature
from pointloom.structures import Losses, SceneBatch, as_module
from pointloom.tasks.scene_segmentation import SceneSegmentation, scene_scores
from pointloom.train.checkpoint import load_encoder_module, load_scene_encoder_module, save_encoder

PARAMS: dict[str, Any] = {
    "task": "scene_segmentation", "encoder": "scratch", "encoder_args": {}, "seeds": [0, 1],
    "label_epochs": {1.0: 2, 0.5: 1}, "repeats": 1, "batch_size": 2, "selection": "last", "freeze_encoder": False,
    "features": "finest", "head": "mlp", "class_weights": True, "lovasz_weight": 0.0, "prefer_labelled": False,
    "protocol": "precise", "tta": "none",
    "sampling": {"voxel_size": 0.1, "max_points": 120, "block": "none", "augmentation": "point_transformer"},
    "optim": {"lr": 0.01, "min_lr": 0, "weight_decay": 0, "warmup_epochs": 0, "clip_norm": 10, "schedule": "step",
              "precision": "fp32"},
}  # fmt: skip


def room(name: str, split: str, seed: int, *, labelled: bool = True) -> Scene:
    rng = np.random.default_rng(seed)
    num = 160
    coord, segment = rng.random((num, 3)).astype(np.float32) * 2, rng.integers(0, 2, num).astype(np.int16)
    coord[segment == 0, 2] = 0
    coord[segment == 1, 2] += 0.5
    if not labelled:
        segment[:] = -1
    return Scene(
        name=name, coord=coord, color=rng.integers(0, 255, (num, 3)).astype(np.uint8), normal=None, segment=segment,
        instance=np.full(num, -1, dtype=np.int32), split=split,
    )  # fmt: skip


def write(folder: Path, *, labelled: bool = True) -> None:
    rooms = [room(f"train{i}", "train", i) for i in range(4)]
    rooms += [room(f"test{i}", "test", 10 + i, labelled=labelled) for i in range(3)]
    write_scenes(folder, rooms, classes=("floor", "rest"), box_classes=(), source="test", settings={})


def save(folder: Path, module: object, builder: str, method: str) -> None:
    save_encoder(
        folder, as_module(module), builder=builder, builder_args={}, method=method, labels="none", num_points=64,
        data_digest=None, params={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Seven small rooms and three encoders; all runs in this process, which is quicker than to start others."""
    root = tmp_path_factory.mktemp("scenes")
    write(root / "data")
    tiny = build_scene_encoder("point_transformer_tiny")
    save(root / "models" / "scratch", tiny, "point_transformer_tiny", "untrained")
    save(root / "models" / "learned", tiny, "point_transformer_tiny", "mm3dscene")
    save(root / "models" / "msm", build_scene_encoder("hunet_tiny"), "hunet_tiny", "msm")
    save(root / "models" / "object", build_encoder("point_mae_tiny"), "point_mae_tiny", "mae")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr("pointloom.data.workers.available_cores", lambda: 1)
        yield root


def run(root: Path, name: str, *, data: str = "data", **changed: Any) -> dict[str, Any]:
    params = validate(read_signature("finetune", finetune).params, PARAMS | changed, where="test")
    finetune(
        params, dataset=root / data, encoder=root / "models" / (PARAMS | changed)["encoder"],  # type: ignore[arg-type]
        result=root / "results" / name, metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "results" / name / "result.json").read_text()))


def test_every_share_and_seed_is_trained_and_tested(workspace: Path) -> None:
    result = run(workspace, "scratch")
    assert [(each["fraction"], each["seed"], each["num_train"]) for each in result["runs"]] == [
        (1.0, 0, 4), (1.0, 1, 4), (0.5, 0, 2), (0.5, 1, 2)
    ]  # fmt: skip
    assert (result["protocol"]["protocol"], result["data"]["num_test"]) == ("precise", 3)
    folder, store = workspace / "results" / "scratch", SceneStore(workspace / "data")
    with np.load(folder / "predictions.npz") as kept:
        assert kept["confusion"].shape == (4, 3, 2, 2)
        assert (kept["confusion"].sum((2, 3)) == 160).all()
        assert scene_scores(kept["confusion"][0].sum(0)).miou == pytest.approx(result["runs"][0]["miou"])
    with np.load(folder / "scenes.npz") as shown:
        assert shown["offset"].tolist() == [160, 320]
        assert np.array_equal(shown["coord"][:160], store.scene(int(store.rows("test")[0])).coord)
        assert {key: shown[key].dtype.name for key in ("coord", "color", "label", "prediction")} == {
            "coord": "float32", "color": "uint8", "label": "int16", "prediction": "int16"
        }  # fmt: skip
    rows = list(csv.DictReader((folder / "curves.csv").open()))
    assert len(rows) == 2 * 2 + 2 * 1


def test_head_alone_is_trained_on_pretrained_weights(workspace: Path) -> None:
    changed = {"encoder": "learned", "freeze_encoder": True, "features": "all", "head": "linear", "seeds": [0],
               "label_epochs": {1.0: 1}, "protocol": "in_training", "selection": "official"}  # fmt: skip
    result = run(workspace, "frozen", **changed)
    assert result["protocol"]["freeze_encoder"] is True
    assert 0 <= result["runs"][0]["miou"] <= 100


def test_hunet_is_tuned_from_its_pretrained_weights_with_another_drop_path(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SceneSegmentation] = []

    class Spied(SceneSegmentation):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            seen.append(copy.deepcopy(self))
            seen.append(self)

    monkeypatch.setattr("pointloom.tasks.scene_segmentation.SceneSegmentation", Spied)
    changed = {"encoder": "msm", "encoder_args": {"drop_path": 0.2}, "features": "all", "seeds": [0],
               "label_epochs": {1.0: 2}, "lovasz_weight": 1.0}  # fmt: skip
    result = run(workspace, "hunet", **changed)
    assert result["encoder"]["method"] == "msm"
    assert np.isfinite(result["runs"][0]["loss"])
    assert 0 <= result["runs"][0]["miou"] <= 100
    before, after = (as_module(task.encoder).state_dict() for task in seen[-2:])
    learned = load_scene_encoder_module(workspace / "models" / "msm")[0]
    assert all(torch.equal(value, before[key]) for key, value in as_module(learned).state_dict().items())
    assert not torch.equal(before["stem.0.weight"], after["stem.0.weight"].cpu())


def test_few_labelled_points_are_all_that_is_learned_from_and_they_survive_thinning(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Spied(SceneSegmentation):
        def forward(self, batch: SceneBatch) -> Losses:
            seen.append(int((batch.segment >= 0).sum()))
            return super().forward(batch)

    monkeypatch.setattr("pointloom.tasks.scene_segmentation.SceneSegmentation", Spied)
    sampling = PARAMS["sampling"] | {"voxel_size": 0.5, "max_points": None, "augmentation": "none"}
    few = {"seeds": [0], "label_epochs": {1.0: 2}, "labelled_points": 3, "sampling": sampling}
    result = run(workspace, "few", **few)
    assert result["protocol"]["labelled_points"] == 3
    assert max(seen) == 2 * 3  # two rooms a step; less where two labelled points share a voxel
    assert min(seen) >= 4
    with np.load(workspace / "results" / "few" / "predictions.npz") as kept:
        assert (kept["confusion"].sum((2, 3)) == 160).all()  # all test points are scored


def test_smaller_shares_are_subsets_of_larger_ones() -> None:
    rows = np.arange(10, 50)
    for seed in range(3):
        tenth, fifth, whole = (labelled_scenes(rows, fraction=f, seed=seed) for f in (0.1, 0.2, 1.0))
        assert (len(tenth), len(fifth)) == (4, 8)
        assert set(tenth) < set(fifth) < set(whole) == set(rows)
    assert len(labelled_scenes(rows, fraction=0.001, seed=0)) == 1
    assert not np.array_equal(labelled_scenes(rows, fraction=0.1, seed=0), labelled_scenes(rows, fraction=0.1, seed=1))


def test_what_cannot_work_is_said_before_training(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="needs protocol 'precise'"):
        run(workspace, "bad", protocol="in_training", tta="scannet")
    with pytest.raises(ParamsError, match=r"shares in \(0, 1\]"):
        run(workspace, "bad", label_epochs={2.0: 1})
    with pytest.raises(CheckpointError, match="an encoder of objects; this needs one of scenes"):
        run(workspace, "bad", encoder="object")
    write(workspace / "unlabelled", labelled=False)
    with pytest.raises(DataError, match="none of its 3 test scenes has labelled points"):
        run(workspace, "bad", data="unlabelled")


def test_scene_encoders_come_back_from_disk(workspace: Path) -> None:
    module, card = load_scene_encoder_module(workspace / "models" / "learned")
    assert card.builder == "point_transformer_tiny"
    again, _ = load_scene_encoder_module(workspace / "models" / "learned")
    own, other = as_module(module).state_dict(), as_module(again).state_dict()
    assert all((own[name] == other[name]).all() for name in own)
    assert "load_scene_encoder_module" in (workspace / "models" / "learned" / "README.md").read_text()
    with pytest.raises(CheckpointError, match="an encoder of scenes; this needs one of objects"):
        load_encoder_module(workspace / "models" / "learned")


@pytest.mark.parametrize("box_classes", [(), ("sofa",)])
def test_scans_without_classes_of_points_are_skipped(workspace: Path, box_classes: tuple[str, ...]) -> None:
    unknown = np.full(3, -1)
    coord = np.eye(3, dtype=np.float32)
    scan = Scene("scan", coord, None, None, unknown.astype(np.int16), unknown.astype(np.int32), split="pretrain")
    write_scenes(workspace / "scans", [scan], classes=(), box_classes=box_classes, source="scans", settings={})
    assert run(workspace, "scans", data="scans")["runs"] == []
