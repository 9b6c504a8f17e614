"""Downstream tasks of stage finetune on a few generated objects: files, numbers, clear errors before training."""

import csv
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pointloom.data.objects import ObjectLoader, Sampling
from pointloom.data.scene_store import write_scenes
from pointloom.data.scenes import Scene
from pointloom.data.shards import ObjectStore
from pointloom.data.transforms import unit_sphere
from pointloom.errors import DataError, ParamsError
from pointloom.stages.finetune import finetune
from pointloom.stages.finetune_tasks import (
    ClassificationParams,
    FewShotParams,
    PartSegmentationParams,
    SceneSegmentationParams,
    SemanticSegmentationParams,
)
from pointloom.stages.finetune_tasks.base import kept_outcome, run_all
from pointloom.stages.finetune_tasks.classification import draws_of_test
from pointloom.stages.prepare import PrepareParams, prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods import UntrainedParams
from pointloom.stages.read_params import validate
from pointloom.stages.signature import read_signature
from pointloom.train.parallel import Advance

SAMPLING = {"num_points": 64, "pool": 128, "scale_min": 0.8, "scale_max": 1.2, "shift": 0.1, "rotate_degrees": 0}
OPTIM = {
    "lr": 1e-3, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 0, "clip_norm": 10, "schedule": "step",
    "precision": "fp32",
}  # fmt: skip
PART_SAMPLING = {"num_points": 64, "scale_min": 0.8, "scale_max": 1.25, "shift": 0.1}
PARTS: dict[str, Any] = {
    "task": "part_segmentation", "encoder": "scratch", "encoder_args": {}, "seeds": [0, 1], "epochs": 3,
    "batch_size": 8, "draws": 2, "replacement": True, "double_step": False, "selection": "last",
    "sampling": PART_SAMPLING, "optim": OPTIM,
}  # fmt: skip
CLASSES: dict[str, Any] = {
    "encoder": "scratch", "encoder_args": {"class_token": True}, "head": "linear", "seeds": [0],
    "label_epochs": {1.0: 1}, "batch_size": 8, "label_smoothing": 0.1, "votes": 2, "selection": "last",
    "sampling": SAMPLING, "optim": OPTIM,
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 60 generated objects with their parts, and untrained encoders."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "raw").mkdir()
    params = PrepareParams(
        source="synthetic", num_objects=60, unlabelled_synthetic=0, num_points=128, seed=0, test_fraction=0.4,
        up="auto", max_failure_ratio=0.0, num_workers=1,
    )  # fmt: skip
    prepare(params, source=root / "raw", dataset=root / "data", metrics=root / "prepare.json", state=root / "state")
    for name, builder, args in (
        ("scratch", "point_mae_tiny", {"num_groups": 8, "group_size": 8}),
        ("pointnet", "pointnet", {}),
    ):
        untrained = UntrainedParams(method="untrained", encoder=builder, encoder_args=args, num_points=64, seed=0)
        pretrain(
            untrained, dataset=root / "data", encoder=root / "models" / name, metrics=root / f"{name}.json",
            state=root / "state",
        )  # fmt: skip
    return root


def run(root: Path, name: str, values: dict[str, Any], *, data: str = "data", **changed: Any) -> dict[str, Any]:
    values = values | changed
    params = validate(read_signature("finetune", finetune).params, values, where="test")
    finetune(
        params, dataset=root / data, encoder=root / "models" / values["encoder"], result=root / "results" / name,  # type: ignore[arg-type]
        metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "results" / name / "result.json").read_text()))


def test_section_without_a_task_is_classification_and_keeps_its_digest() -> None:
    models = read_signature("finetune", finetune).params
    params = validate(models, CLASSES, where="test")
    assert isinstance(params, ClassificationParams)
    assert set(params.model_dump(mode="json")) == set(CLASSES)
    assert params.model_dump() == validate(models, CLASSES | {"task": "classification"}, where="test").model_dump()
    assert isinstance(validate(models, PARTS, where="test"), PartSegmentationParams)


def test_examples_of_the_manual_are_valid_sections() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text()
    models = read_signature("finetune", finetune).params
    blocks = re.findall(r"```\n(finetune:.*?)```", page, re.DOTALL)
    sections = {name: each for block in blocks for name, each in yaml.safe_load(block)["finetune"].items()}
    found = {name: type(validate(models, section, where="docs")) for name, section in sections.items()}
    assert found == {
        "parts": PartSegmentationParams, "msm": SceneSegmentationParams, "scanobjectnn": ClassificationParams,
        "few_shot": FewShotParams, "s3dis": SemanticSegmentationParams,
    }  # fmt: skip


def test_misspelt_task_names_the_tasks() -> None:
    models = read_signature("finetune", finetune).params
    with pytest.raises(ParamsError, match=r"task: expected one of classification, .*part_seg.*did you mean"):
        validate(models, PARTS | {"task": "part_segmentaton"}, where="test")


def test_misspelt_freeze_names_what_there_is() -> None:
    models = read_signature("finetune", finetune).params
    transfer = {"freeze": "linear", "head_lr_factor": 10}
    with pytest.raises(ParamsError, match=r"transfer\.freeze: .*'none', 'encoder' or 'official'.*got 'linear'"):
        validate(models, CLASSES | {"transfer": transfer}, where="test")


@pytest.mark.slow
def test_part_segmentation_learns_and_writes_everything(workspace: Path) -> None:
    found = run(workspace, "parts", PARTS)
    store = ObjectStore(workspace / "data")
    assert found["task"] == "part_segmentation"
    assert found["num_parts"] == sum(len(store.info.parts[name]) for name in store.info.classes)
    assert [each["seed"] for each in found["runs"]] == [0, 1]
    with np.load(workspace / "results/parts/predictions.npz", allow_pickle=False) as file:
        assert file["iou"].shape == file["point_accuracy"].shape == (2, len(store.rows("test")))
        for each, iou in zip(found["runs"], file["iou"], strict=True):
            assert each["miou_instance"] == pytest.approx(100 * iou.mean(), abs=1e-3)
            classes = [100 * iou[file["label"] == label].mean() for label in np.unique(file["label"])]
            assert each["miou_class"] == pytest.approx(np.mean(classes), abs=1e-3)
            assert list(each["categories"].values()) == pytest.approx(classes, abs=1e-3)
    with (workspace / "results/parts/curves.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["seed"], float(row["epoch"])) for row in rows] == [(s, e) for s in "01" for e in (1.0, 2.0, 3.0)]
    for first, second, third in (rows[:3], rows[3:]):
        assert float(first["loss"]) > float(second["loss"]) > float(third["loss"])
        assert float(third["loss"]) < 0.9 * float(first["loss"])
    metrics = json.loads((workspace / "parts.json").read_text())["metrics"]
    assert metrics["miou_instance/mean"] == pytest.approx(np.mean([r["miou_instance"] for r in found["runs"]]))


@pytest.mark.slow
def test_official_selection_takes_the_best_epoch_by_instance_iou(workspace: Path) -> None:
    last = run(workspace, "parts-last", PARTS, seeds=[0], double_step=True)
    best = run(workspace, "parts-best", PARTS, seeds=[0], double_step=True, selection="official")
    assert best["runs"][0]["miou_instance"] >= last["runs"][0]["miou_instance"]
    assert best["runs"][0]["loss"] == last["runs"][0]["loss"]


def test_encoder_without_a_segmentation_head_is_refused_before_training(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="no segmentation head for PointNetEncoder"):
        run(workspace, "parts-pointnet", PARTS, encoder="pointnet")


def test_store_without_parts_is_refused_before_training(workspace: Path) -> None:
    description = json.loads((workspace / "data/dataset.json").read_text())
    bare = workspace / "bare"
    bare.mkdir()
    for each in (workspace / "data").iterdir():
        if each.name != "dataset.json":
            (bare / each.name).symlink_to(each)
    (bare / "dataset.json").write_text(json.dumps(description | {"parts": {}}))
    with pytest.raises(DataError, match="part segmentation needs part labels for every class"):
        run(workspace, "parts-bare", PARTS, data="bare")


def test_transfer_protocol_and_official_voting_are_reported(workspace: Path) -> None:
    transfer, voting = {"freeze": "official", "head_lr_factor": 10}, {"draws": 2, "passes": 3}
    found = run(workspace, "transfer", CLASSES, head="mlp_linear", transfer=transfer, voting=voting)
    (each,) = found["runs"]
    assert each["oa_voting_mean"] <= each["oa_voting_max"] <= 100
    assert found["protocol"]["transfer"] == transfer
    assert found["protocol"]["voting"] == voting
    metrics = json.loads((workspace / "transfer.json").read_text())["metrics"]
    assert metrics["oa_voting_max/mean"] == each["oa_voting_max"]


def test_one_vote_is_for_the_farthest_points_and_several_are_for_random_ones(workspace: Path) -> None:
    store = ObjectStore(workspace / "data")
    rows = store.rows("test")
    sampling = Sampling(num_points=64, pool=128, scale=(1.0, 1.0), shift=0.0, rotate_degrees=0.0)
    loader = ObjectLoader(store, rows, sampling=sampling, batch_size=len(rows), seed=0)
    ((once,),) = draws_of_test(loader, votes=1)
    assert torch.equal(once.coord, unit_sphere(torch.from_numpy(store.coords(rows, num_points=64))))
    (first,), (second,) = draws_of_test(loader, votes=2)
    assert not torch.equal(first.coord, second.coord)


ROOMS: dict[str, Any] = {
    "task": "semantic_segmentation", "encoder": "scratch", "encoder_args": {}, "seeds": [0], "epochs": 2,
    "batch_size": 4, "train_areas": [1], "test_areas": [5], "block_size": 1.0, "min_points": 32, "class_weights": True,
    "freeze_encoder": False, "double_step": True, "selection": "official", "sampling": PART_SAMPLING, "optim": OPTIM,
}  # fmt: skip


@pytest.fixture(scope="module")
def rooms(workspace: Path) -> Path:
    """Two small rooms with a floor and a wall."""
    rng = np.random.default_rng(0)
    made = []
    for area, num in ((1, 800), (5, 400)):
        floor, wall = rng.uniform((0, 0, 0), (2, 2, 0.05), (num, 3)), rng.uniform((0, 0, 0.2), (2, 0.1, 2), (num, 3))
        made.append(Scene(
            name=f"Area_{area}_office_1", coord=np.concatenate([floor, wall]).astype(np.float32), color=None,
            normal=None, segment=np.repeat([0, 1], num).astype(np.int16), instance=np.full(2 * num, -1, np.int32),
            group=f"Area_{area}",
        ))  # fmt: skip
    write_scenes(workspace / "rooms", made, classes=("floor", "wall"), box_classes=(), source="test", settings={})
    return workspace / "rooms"


@pytest.mark.usefixtures("rooms")
def test_semantic_segmentation_of_rooms_writes_everything(workspace: Path) -> None:
    found = run(workspace, "rooms-scratch", ROOMS, data="rooms")
    (each,) = found["runs"]
    assert found["task"] == "semantic_segmentation"
    assert found["data"]["classes"] == ["floor", "wall"]
    with np.load(workspace / "results/rooms-scratch/predictions.npz", allow_pickle=False) as file:
        (confusion,) = file["confusion"]
    assert confusion.sum() == 12 * 64  # 800 points fill 12 blocks
    assert each["oa"] == pytest.approx(100 * np.trace(confusion) / confusion.sum())
    assert each["macc"] == pytest.approx(100 * (np.diag(confusion) / confusion.sum(1)).mean())
    metrics = json.loads((workspace / "rooms-scratch.json").read_text())["metrics"]
    assert metrics["miou/mean"] == each["miou"]


@pytest.mark.usefixtures("rooms")
def test_area_in_training_and_test_is_refused_before_training(workspace: Path) -> None:
    with pytest.raises(ParamsError, match=r"areas \[1\] are in train_areas and in test_areas"):
        run(workspace, "rooms-both", ROOMS, data="rooms", test_areas=[1, 5])


def test_objects_are_refused_where_rooms_are_needed(workspace: Path) -> None:
    with pytest.raises(DataError, match="expected 'scenes'"):
        run(workspace, "rooms-objects", ROOMS)


FEW: dict[str, Any] = {
    "task": "few_shot", "encoder": "scratch", "encoder_args": {"class_token": True}, "head": "mlp3",
    "way": 3, "shot": 1, "query": 1, "folds": [0, 1], "folder": None, "num_outputs": 40, "epochs": 2, "batch_size": 3,
    "label_smoothing": 0.0, "votes": 2, "selection": "official", "sampling": SAMPLING, "optim": OPTIM,
}  # fmt: skip


@pytest.mark.slow
def test_few_shot_runs_every_seeded_fold(workspace: Path) -> None:
    found = run(workspace, "few", FEW)
    assert [(each["fold"], each["num_train"], each["num_test"]) for each in found["runs"]] == [(0, 3, 3), (1, 3, 3)]
    assert found["protocol"]["folds"] == "seeded, of our own"
    metrics = json.loads((workspace / "few.json").read_text())["metrics"]
    assert metrics["oa/mean"] == pytest.approx(np.mean([each["oa"] for each in found["runs"]]))


def test_few_shot_reads_the_folds_of_the_community(workspace: Path) -> None:
    rng = np.random.default_rng(0)

    def objects(per_class: int) -> list[tuple[np.ndarray, int, int]]:
        return [(rng.normal(size=(150, 6)).astype(np.float32), i % 5, 7 + i % 5) for i in range(5 * per_class)]

    folder = workspace / "ModelNetFewshot" / "5way_10shot"
    folder.mkdir(parents=True)
    with (folder / "4.pkl").open("wb") as file:
        pickle.dump({"train": objects(10), "test": objects(2)}, file)
    changed = {"way": 5, "shot": 10, "folds": [4], "folder": str(workspace / "ModelNetFewshot"), "batch_size": 16}
    found = run(workspace, "few-community", FEW, **changed)
    assert [(each["fold"], each["num_train"], each["num_test"]) for each in found["runs"]] == [(4, 50, 10)]
    with pytest.raises(ParamsError, match="num_outputs 4 is less than the 5 classes"):
        run(workspace, "few-narrow", FEW, **(changed | {"num_outputs": 4}))
    with pytest.raises(DataError, match=r"5way_10shot"):
        run(workspace, "few-missing", FEW, **(changed | {"folds": [5]}))
    (folder / "5.pkl").write_bytes((folder / "4.pkl").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"5\.pkl: not read as a pickle"):
        run(workspace, "few-damaged", FEW, **(changed | {"folds": [4, 5], "epochs": 10**6}))  # nothing is trained


@pytest.mark.usefixtures("rooms")
@pytest.mark.parametrize("values", [CLASSES, PARTS, ROOMS, FEW], ids=["classes", "parts", "rooms", "few"])
def test_fewer_points_than_patches_are_refused_before_training(workspace: Path, values: dict[str, Any]) -> None:
    data = "rooms" if values is ROOMS else "data"
    with pytest.raises(ParamsError, match=r"finetune: clouds of 64 points cannot be cut into 65 patches of 8 points"):
        run(workspace, "patches", values, data=data, encoder_args={"num_groups": 65})


def test_too_few_objects_for_a_fold_are_refused_before_training(workspace: Path) -> None:
    with pytest.raises(DataError, match="0 classes have 50 training and 1 test objects, 3 are needed"):
        run(workspace, "few-many", FEW, shot=50)


@dataclass(frozen=True)
class KeptJob:
    state: Path


def test_progress_counts_the_steps_that_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointloom.data.workers.available_cores", lambda: 1)
    trained = []

    def work(job: KeptJob, advance: Advance) -> dict[str, Any]:
        def train() -> tuple[dict[str, Any], dict[str, Any]]:
            trained.append(job.state.name)
            advance()
            return {"name": job.state.name}, {}

        return kept_outcome(job.state, train)

    jobs = [KeptJob(tmp_path / name) for name in ("a", "b", "c")]
    work(jobs[1], lambda: None)
    outcomes = run_all(work, jobs, steps=[1, 100, 1], label="tuning")
    assert [outcome["name"] for outcome in outcomes] == ["a", "b", "c"]
    assert trained == ["b", "a", "c"]
    assert "2/2" in capsys.readouterr().err
