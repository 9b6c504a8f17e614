"""Stages pretrain, finetune and probe on a few generated objects: complete, repeatable, honest about labels."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.stages.finetune import finetune
from pointloom.stages.finetune_tasks.classification import ClassificationParams, label_subset
from pointloom.stages.frozen_features import frozen_features
from pointloom.stages.prepare import PrepareParams, prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.pretrain_methods import MAEParams, UntrainedParams
from pointloom.stages.probe import ObjectProbeParams, probe

SAMPLING = {"num_points": 64, "pool": 128, "scale_min": 0.8, "scale_max": 1.2, "shift": 0.1, "rotate_degrees": 0}
OPTIM = {
    "lr": 1e-3, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 1, "clip_norm": 10, "schedule": "step",
    "precision": "fp32",
}  # fmt: skip
ENCODER: dict[str, Any] = {"encoder": "point_mae_tiny", "encoder_args": {"num_groups": 8, "group_size": 8}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 60 objects, an untrained and a pre-trained encoder."""
    root = tmp_path_factory.mktemp("workspace")
    (root / "raw").mkdir()
    params = PrepareParams(
        source="synthetic", num_objects=60, unlabelled_synthetic=6, num_points=128, seed=0, test_fraction=0.4,
        up="auto", max_failure_ratio=0.0, num_workers=1,
    )  # fmt: skip
    prepare(params, source=root / "raw", dataset=root / "data", metrics=root / "prepare.json", state=root / "state")
    untrained = UntrainedParams(method="untrained", num_points=64, seed=0, **ENCODER)
    run_pretrain(untrained, root, "scratch")
    run_pretrain(mae(), root, "mae")
    return root


def mae(**changed: Any) -> MAEParams:
    values: dict[str, Any] = {
        "method": "mae", **ENCODER, "mask": "random", "mask_ratio": 0.6, "decoder_depth": 1, "decoder_heads": 6,
        "decoder_drop_path": 0.0, "loss_norm": 2, "small_start": True, "embed_visible_only": True,
        "splits": ["train", "pretrain"], "epochs": 2, "batch_size": 8, "seed": 0, "sampling": SAMPLING, "optim": OPTIM,
    }  # fmt: skip
    return MAEParams.model_validate(values | changed)


def run_pretrain(params: MAEParams | UntrainedParams, root: Path, name: str) -> Path:
    pretrain(
        params, dataset=root / "data", encoder=root / "models" / name, metrics=root / f"{name}.json",
        state=root / "state",
    )  # fmt: skip
    return root / "models" / name


def run_finetune(root: Path, encoder: str, name: str, **changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "encoder": encoder, "encoder_args": {"class_token": True}, "head": "linear", "seeds": [0, 1],
        "label_epochs": {1.0: 1, 0.5: 1}, "batch_size": 8, "label_smoothing": 0.1, "votes": 2, "selection": "last",
        "sampling": SAMPLING, "optim": OPTIM,
    }  # fmt: skip
    finetune(
        ClassificationParams.model_validate(values | changed), dataset=root / "data", encoder=root / "models" / encoder,
        result=root / "results" / name, metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "results" / name / "result.json").read_text()))


def test_pretraining_writes_everything_and_repeats_itself(workspace: Path) -> None:
    again = run_pretrain(mae(), workspace, "again")
    for file in ("encoder.safetensors", "encoder.json", "README.md", "curves.csv", "samples.npz"):
        assert (again / file).is_file()
    first, second = (workspace / "models" / name / "encoder.safetensors" for name in ("mae", "again"))
    assert first.read_bytes() == second.read_bytes()
    with np.load(again / "samples.npz", allow_pickle=False) as samples:
        assert samples["visible"].any(1).all()
        assert samples["reconstruction"].shape[1:] == (4 * 8, 3)
        assert np.isin(samples["uid"], ObjectStore(workspace / "data").uids).all()


def test_no_test_object_is_used_in_training(workspace: Path) -> None:
    store = ObjectStore(workspace / "data")
    test = set(store.uids[store.rows("test")])
    trained = set(store.uids[np.concatenate([store.rows("train"), store.rows("pretrain")])])
    assert test
    assert not test & trained
    assert not set(store.groups[store.rows("test")]) & set(store.groups[store.rows("train")])
    for seed in (0, 1):
        assert not test & set(store.uids[label_subset(store, fraction=0.5, seed=seed)])


def test_finetuning_reports_every_seed_and_share(workspace: Path) -> None:
    found = run_finetune(workspace, "mae", "finetune-mae")
    assert [(run["fraction"], run["seed"]) for run in found["runs"]] == [(1.0, 0), (1.0, 1), (0.5, 0), (0.5, 1)]
    assert found["encoder"]["labels"] == "none"
    assert found["protocol"]["selection"] == "last"
    with np.load(workspace / "results/finetune-mae/predictions.npz", allow_pickle=False) as file:
        assert file["prediction"].shape == (4, found["data"]["num_test"])
        for run, correct in zip(found["runs"], file["correct"], strict=True):
            assert run["oa"] == pytest.approx(100 * correct.mean(), abs=1e-3)
    metrics = json.loads((workspace / "finetune-mae.json").read_text())
    assert metrics["metrics"]["oa/mean"] == pytest.approx(np.mean([run["oa"] for run in found["runs"][:2]]))


@pytest.mark.slow
def test_untrained_encoder_is_drawn_anew_for_every_seed_and_repeats_itself(workspace: Path) -> None:
    first = run_finetune(workspace, "scratch", "scratch-1", label_epochs={1.0: 1})
    second = run_finetune(workspace, "scratch", "scratch-2", label_epochs={1.0: 1})
    assert [run["loss"] for run in first["runs"]] == [run["loss"] for run in second["runs"]]
    assert first["runs"][0]["loss"] != first["runs"][1]["loss"]


def test_official_selection_is_never_worse_than_the_last_epoch_and_is_named(workspace: Path) -> None:
    last = run_finetune(workspace, "mae", "last", label_epochs={1.0: 3}, seeds=[0])
    best = run_finetune(workspace, "mae", "best", label_epochs={1.0: 3}, seeds=[0], selection="official")
    assert best["protocol"]["selection"] == "official"
    assert best["runs"][0]["oa"] >= last["runs"][0]["oa"]


def test_probe_runs_every_protocol_and_keeps_features(workspace: Path) -> None:
    params = ObjectProbeParams.model_validate({
        "encoder": "mae", "seeds": [0, 1], "draws": 2, "precision": "fp32", "sampling": SAMPLING,
        "svm": {"C": [0.1], "folds": 2}, "linear": {"epochs": 2, "lr": 0.01}, "mlp3": {"epochs": 2, "lr": 0.01},
        "few_shot": {"way": 2, "shot": 1, "query": 1, "episodes": 2, "C": 0.1},
    })  # fmt: skip
    result = workspace / "results" / "probe-mae"
    probe(
        params, dataset=workspace / "data", encoder=workspace / "models" / "mae", result=result,
        metrics=workspace / "probe.json", state=workspace / "state",
    )  # fmt: skip
    runs = json.loads((result / "result.json").read_text())["runs"]
    assert {run["protocol"] for run in runs} == {"svm", "linear", "mlp3", "few_shot_2w1s"}
    store = ObjectStore(workspace / "data")
    with np.load(result / "features.npz", allow_pickle=False) as file:
        assert file["feature"].shape == (len(store), 384)
        assert file["point_feature"].shape[1:] == (64, 192)
    with np.load(result / "predictions.npz", allow_pickle=False) as file:
        assert file["prediction"].shape == (6, len(store.rows("test")))


def test_probe_that_is_stopped_repeats_no_finished_seed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = ObjectProbeParams.model_validate({
        "encoder": "scratch", "seeds": [3, 4], "draws": 1, "precision": "fp32", "sampling": SAMPLING,
        "svm": {"C": [0.1], "folds": 2}, "linear": {"epochs": 1, "lr": 0.01}, "mlp3": None,
        "few_shot": {"way": 2, "shot": 1, "query": 1, "episodes": 2, "C": 0.1},
    })  # fmt: skip
    seen: list[int] = []
    stops = {4}

    def features(*words: Any, seed: int, **more: Any) -> Any:
        seen.append(seed)
        if seed in stops:
            raise KeyboardInterrupt
        return frozen_features(*words, seed=seed, **more)

    def run(name: str) -> list[dict[str, Any]]:
        probe(
            params, dataset=workspace / "data", encoder=workspace / "models" / "scratch",
            result=workspace / "results" / name, metrics=workspace / f"{name}.json", state=workspace / "state",
        )  # fmt: skip
        records = json.loads((workspace / "results" / name / "result.json").read_text())["runs"]
        return [{key: value for key, value in record.items() if key != "wall_s"} for record in records]

    monkeypatch.setattr(import_module("pointloom.stages.probe"), "frozen_features", features)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    stops.clear()
    continued = run("stopped")
    assert seen == [3, 4, 4]
    assert continued == run("whole")
    assert not list((workspace / "state" / "probe").iterdir())
    for name in ("features", "predictions"):
        with (
            np.load(workspace / f"results/stopped/{name}.npz", allow_pickle=False) as first,
            np.load(workspace / f"results/whole/{name}.npz", allow_pickle=False) as second,
        ):
            assert {key: first[key].tolist() for key in first} == {key: second[key].tolist() for key in second}


def test_probe_without_enough_objects_for_few_shot_says_so(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    params = ObjectProbeParams.model_validate({
        "encoder": "mae", "seeds": [0], "draws": 1, "precision": "fp32", "sampling": SAMPLING,
        "svm": {"C": [0.1], "folds": 2}, "linear": None, "mlp3": None,
        "few_shot": {"way": 3, "shot": 50, "query": 1, "episodes": 2, "C": 0.1},
    })  # fmt: skip
    result = workspace / "results" / "probe-few"
    probe(
        params, dataset=workspace / "data", encoder=workspace / "models" / "mae", result=result,
        metrics=workspace / "few.json", state=workspace / "state",
    )  # fmt: skip
    found = json.loads((result / "result.json").read_text())
    assert [run["protocol"] for run in found["runs"]] == ["svm"]
    assert found["protocol"]["few_shot"]["eligible_classes"] == 0
    assert "few-shot is left out: 0 classes have 50 training and 1 test objects, 3 are needed" in caplog.text
