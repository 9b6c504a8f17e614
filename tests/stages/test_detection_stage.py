"""Task ``detection`` of stage finetune on a few small rooms: files, numbers, clear errors before training."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pointloom.data.scene_store import write_scenes
from pointloom.errors import DataError, ParamsError
from pointloom.stages.finetune import finetune
from pointloom.stages.finetune_tasks import detection as finetune_detection
from pointloom.stages.pretrain_methods import UntrainedParams, write_untrained
from pointloom.stages.read_params import validate
from pointloom.stages.signature import read_signature
from pointloom.tasks.box_matches import match_boxes
from pointloom.tasks.detection_scores import FoundBoxes, TrueBoxes, detection_scores
from tests.tasks.boxed_rooms import boxed_scene

OPTIM = {
    "lr": 1e-3, "min_lr": 0, "weight_decay": 0, "warmup_epochs": 0, "clip_norm": 1, "schedule": "votenet",
    "precision": "fp32",
}  # fmt: skip
SAMPLING = {
    "num_points": 256, "flip_x": True, "flip_y": True, "rotate_degrees": 5, "scale_min": 0.9, "scale_max": 1.1,
    "cuboid": {"min_points": 128, "min_crop": 0.5, "aspect": 0.8},
}  # fmt: skip
VALUES: dict[str, Any] = {
    "task": "detection", "encoder": "pointnet2", "encoder_args": {}, "detector": "votenet",
    "detector_args": {"num_proposals": 8}, "object_scale": None, "num_headings": 1, "seeds": [0, 1],
    "label_epochs": {1.0: 2}, "batch_size": 2, "freeze_encoder": False, "selection": "last", "sampling": SAMPLING,
    "optim": OPTIM,
    "momentum": {"start": 0.5, "factor": 0.5, "every_epochs": 1, "floor": 0.001},
    "keep": {"nms_iou": 0.25, "min_objectness": 0.05, "min_points": 5},
}  # fmt: skip
DETR: dict[str, Any] = {
    "label_epochs": {1.0: 1}, "momentum": None, "detector_args": {"num_queries": 8, "dim": 16, "depth": 1, "hidden": 16}
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, int]]] = {
    "pointnet2": ("pointnet2_tiny", {"num_seeds": 32, "width": 16}),
    "detr": ("detr", {"dim": 16, "num_tokens": 16, "num_neighbors": 8}),
    "detr_masked": ("detr_masked", {"dim": 16, "num_tokens": 32, "num_neighbors": 8}),
    "objects": ("point_mae_tiny", {"num_groups": 8, "group_size": 8}),
    "packed": ("point_transformer_tiny", {}),
    "voxels": ("hunet_tiny", {}),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rooms, three of them for testing, and untrained encoders."""
    root = tmp_path_factory.mktemp("detection")
    rooms = [boxed_scene(i, num_boxes=(0 if i == 4 else 3), turned=True) for i in range(6)]
    write_scenes(
        root / "data", rooms, classes=("floor", "chest", "shelf"), box_classes=("chest", "shelf"), source="test",
        settings={},
    )  # fmt: skip
    for name, (builder, args) in ENCODERS.items():
        params = UntrainedParams(method="untrained", encoder=builder, encoder_args=args, num_points=256, seed=0)
        write_untrained(params, root / "models" / name)
    return root


def run(root: Path, name: str, **changed: Any) -> dict[str, Any]:
    params = validate(read_signature("finetune", finetune).params, VALUES | changed, where="test")
    finetune(
        params, dataset=root / "data", encoder=root / "models" / (VALUES | changed)["encoder"],  # type: ignore[arg-type]
        result=root / "results" / name, metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "results" / name / "result.json").read_text()))


def test_result_has_a_run_per_seed_that_its_own_boxes_explain(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointloom.data.workers.available_cores", lambda: 1)  # no process of its own for every run
    result = run(workspace, "votenet")
    assert result["data"] | {"digest": ""} == {
        "digest": "", "num_train": 3, "num_test": 3, "classes": ["chest", "shelf"]
    }  # fmt: skip
    assert [each["seed"] for each in result["runs"]] == [0, 1]
    assert set(result["runs"][0]["classes"]) == {"chest", "shelf"}
    with np.load(workspace / "results" / "votenet" / "predictions.npz") as kept:
        arrays = {key: kept[key] for key in kept.files}
    truth = TrueBoxes(arrays["true_boxes"], arrays["true_label"], arrays["true_scene"])
    assert len(truth.label) == 9
    for each in result["runs"]:
        mine = arrays["seed"] == each["seed"]
        found = FoundBoxes(arrays["boxes"][mine], arrays["score"][mine], arrays["scene"][mine])
        scores = detection_scores(match_boxes(found, truth), truth, threshold=0.25)
        assert each["ap25"] == pytest.approx(scores.mean_ap)
        assert each["ar25"] == pytest.approx(scores.mean_recall)
        assert each["classes"]["shelf"]["ap25"] == pytest.approx(scores.ap[1])
        assert 0 <= each["ap50"] <= each["ap25"] <= 100
    with (workspace / "results" / "votenet" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1.0"), ("0", "2.0"), ("1", "1.0"), ("1", "2.0")]


def test_shares_of_labelled_scenes_learn_from_nested_scenes_and_their_boxes_alone(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointloom.data.workers.available_cores", lambda: 1)
    seen: list[tuple[int, ...]] = []
    sizes = finetune_detection._mean_sizes

    def spied(params: Any, store: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        seen.append(tuple(rows.tolist()))
        return sizes(params, store, rows)

    monkeypatch.setattr(finetune_detection, "_mean_sizes", spied)
    result = run(workspace, "shares", seeds=[1], label_epochs={0.4: 3, 1.0: 1})
    found = [(each["fraction"], each["num_train"], each["epochs"], each["seed"]) for each in result["runs"]]
    assert found == [(1.0, 3, 1, 1), (0.4, 1, 3, 1)]
    checked, few, whole = seen  # the smallest share is looked at before any training; the longest run comes first
    assert checked == few
    assert (len(few), len(whole)) == (1, 3)
    assert set(few) < set(whole)
    with np.load(workspace / "results" / "shares" / "predictions.npz") as kept:
        assert set(kept["fraction"]) <= {0.4, 1.0}
        assert len(kept["fraction"]) == len(kept["boxes"])


def test_share_without_any_box_is_said_before_training(workspace: Path) -> None:
    with pytest.raises(DataError, match="the labelled training scenes have no boxes"):
        run(workspace, "wrong", seeds=[0, 1, 2, 3, 4, 5], label_epochs={0.01: 1})  # room_4 has none


def test_scenes_to_look_at_fit_their_boxes(workspace: Path) -> None:
    run(workspace, "looked_at", seeds=[0], label_epochs={1.0: 1}, num_headings=4)
    with np.load(workspace / "results" / "looked_at" / "scenes.npz") as kept:
        arrays = {key: kept[key] for key in kept.files}
    assert arrays["name"].tolist() == ["room_1", "room_3", "room_5"]
    assert arrays["offset"].tolist() == [256, 512, 768]
    assert arrays["coord"].shape == arrays["color"].shape == (768, 3)
    assert arrays["true_scene"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert np.ptp(arrays["true_heading"]) > 0
    for kind in ("box", "true"):
        sizes = {len(arrays[f"{kind}_{key}"]) for key in ("scene", "center", "size", "heading", "label")}
        assert len(sizes) == 1
    assert set(arrays["box_scene"]) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("detector", "encoder", "changed"),
    [
        ("3detr", "detr", DETR),
        ("3detr", "packed", {**DETR, "num_seeds": 32, "freeze_encoder": True}),
        pytest.param("3detr_m", "voxels", {**DETR, "num_seeds": 32}, marks=pytest.mark.slow),
        pytest.param("votenet", "voxels", {"label_epochs": {1.0: 1}, "num_seeds": 32}, marks=pytest.mark.slow),
        pytest.param("3detr_m", "objects", {**DETR, "object_scale": 2.0}, marks=pytest.mark.slow),
        pytest.param("3detr_m", "detr_masked", DETR, marks=pytest.mark.slow),
        pytest.param("h3dnet", "pointnet2", {"label_epochs": {1.0: 1}}, marks=pytest.mark.slow),
    ],
)
def test_other_detectors_are_trained_and_tested(
    workspace: Path, detector: str, encoder: str, changed: dict[str, Any]
) -> None:
    result = run(workspace, detector, detector=detector, encoder=encoder, seeds=[0], **changed)
    assert result["protocol"]["detector"] == detector
    assert np.isfinite(result["runs"][0]["loss"])


def test_frozen_encoder_and_best_epoch_are_supported(workspace: Path) -> None:
    result = run(workspace, "frozen", seeds=[0], label_epochs={1.0: 1}, freeze_encoder=True, selection="official")
    assert result["protocol"]["freeze_encoder"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_seeds": 64}, "num_seeds is 64, but this encoder makes seeds itself"),
        ({"encoder": "detr_masked", "detector": "3detr", **DETR}, "'3detr_m' goes with encoder 'detr_masked'"),
        ({"encoder": "objects"}, "object_scale is None and the encoder is 'point_mae_tiny'"),
        ({"object_scale": 2.0}, "object_scale is 2.0 and the encoder is 'pointnet2_tiny'"),
        ({"detector_args": {"num_boxes": 3}}, "detector 'votenet' cannot be built with {'num_boxes': 3}"),
    ],
)
def test_what_does_not_fit_is_said_before_training(workspace: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        run(workspace, "wrong", **changed)


def test_axis_aligned_boxes_need_aligned_scenes(workspace: Path, tmp_path: Path) -> None:
    rooms = [replace(boxed_scene(i, turned=True), aligned=False) for i in range(2)]
    write_scenes(tmp_path / "data", rooms, classes=("floor", "chest", "shelf"), box_classes=("chest", "shelf"),
                 source="test", settings={})  # fmt: skip
    (tmp_path / "models").symlink_to(workspace / "models")
    with pytest.raises(ParamsError, match="num_headings 1 makes boxes along the axes"):
        run(tmp_path, "turned")


def test_store_without_boxes_is_an_error(workspace: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", [boxed_scene(0, num_boxes=0)], classes=("floor",), box_classes=(), source="test",
                 settings={})  # fmt: skip
    (tmp_path / "models").symlink_to(workspace / "models")
    with pytest.raises(DataError, match="these scenes have no boxes"):
        run(tmp_path, "empty")


def test_scans_without_classes_are_skipped(workspace: Path, tmp_path: Path) -> None:
    scan = boxed_scene(0, num_boxes=0)
    scan = replace(scan, boxes=None, segment=np.full_like(scan.segment, -1), split="pretrain")
    write_scenes(tmp_path / "data", [scan], classes=(), box_classes=(), source="scans", settings={})
    (tmp_path / "models").symlink_to(workspace / "models")
    assert run(tmp_path, "skipped")["runs"] == []
