"""Stages align and distill on a few clouds with features on disk: complete, repeatable, blind to test objects."""

import csv
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointloom.data.aligned_text import read_aligned_text
from pointloom.data.features import FeatureStore
from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.shape_index import ShapeIndex
from pointloom.data.shards import ObjectStore, write_store
from pointloom.data.triplets import choose_teachers
from pointloom.errors import CheckpointError, DataError, ParamsError
from pointloom.methods.align import Align, Heads, load_heads
from pointloom.methods.distill import Distill
from pointloom.stages.align import AlignParams, _build, align, training_rows
from pointloom.stages.distill import DistillParams, distill
from pointloom.stages.finetune import finetune
from pointloom.stages.finetune_tasks import ClassificationParams
from pointloom.stages.frozen_features import labelled_split
from pointloom.stages.probe import ObjectProbeParams, probe
from pointloom.stages.training import can_classify
from pointloom.train.checkpoint import load_encoder_module, read_card
from tests.data.teacher_files import write_teachers

CLASSES = ("ball", "needle", "plate")
SAMPLING = {"num_points": 48, "pool": 64, "scale_min": 0.9, "scale_max": 1.1, "shift": 0.1, "rotate_degrees": 0}
OPTIM = {
    "lr": 2e-3, "min_lr": 0, "weight_decay": 0.05, "warmup_epochs": 1, "clip_norm": 10, "schedule": "step",
    "precision": "fp32",
}  # fmt: skip
ENCODER_ARGS = {"num_groups": 8, "group_size": 8, "class_token": True, "drop_path": 0.0}


def write_objects(folder: Path, classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> ObjectStore:
    """Write 36 clouds of three shapes that are easy to tell apart; every third object is a test object."""
    rng = np.random.default_rng(seed)
    stretch = dict(zip(classes, ((1, 1, 1), (0.1, 0.1, 1), (1, 1, 0.05)), strict=True))
    objects = []
    for number in range(36):
        category = classes[number % 3]
        record = ObjectRecord(
            uid=f"o{number:02d}", path=f"{number}", name=f"{number}", category=category, group=f"g{number}",
            split="test" if number // 3 % 3 == 2 else "train", up_axis="z", transform=tuple(np.eye(4).ravel()),
            sha256=f"{number}", num_faces=0,
        )  # fmt: skip
        points = (rng.normal(size=(64, 3)) * stretch[category]).astype(np.float32)
        objects.append((record, ObjectPoints(points, points, np.zeros((64, 3), np.uint8))))
    write_store(folder, objects, num_points=64, source="folder", settings={})
    return ObjectStore(folder)


def align_params(**changed: Any) -> AlignParams:
    values: dict[str, Any] = {
        "features": "f", "encoder": "point_mae_tiny", "encoder_args": ENCODER_ARGS, "text_teacher": None,
        "image_teachers": None, "captions": "all", "held_out": [], "multi_positive": False,
        "per_teacher_temperature": True, "splits": ["train"], "epochs": 2, "batch_size": 8, "seed": 0,
        "sampling": SAMPLING, "optim": OPTIM | {"beta2": 0.98},
        "test": {"seeds": [0, 1], "draws": 2, "resamples": 200, "confidence": 0.95},
    }  # fmt: skip
    return AlignParams.model_validate(values | changed)


def run_align(root: Path, name: str, *, features: str = "features", **changed: Any) -> dict[str, Any]:
    align(
        align_params(**changed), dataset=root / "data", features=root / features, encoder=root / "models" / name,
        result=root / "results" / name, metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "results" / name / "result.json").read_text()))


def run_distill(root: Path, name: str, *, teacher: str = "align", **changed: Any) -> Path:
    values: dict[str, Any] = {
        "teacher": teacher, "student": "teacher", "encoder_args": {}, "mask": "random", "mask_ratio": 0.5,
        "local_target": "tokens", "local_weight": 1.0, "global_term": True, "shuffle": True, "decoder_depth": 1,
        "global_depth": 1, "decoder_heads": 6, "embed_visible_only": True, "splits": ["train"], "epochs": 2,
        "batch_size": 8, "seed": 0, "sampling": SAMPLING, "optim": OPTIM,
    }  # fmt: skip
    distill(
        DistillParams.model_validate(values | changed), dataset=root / "data", teacher=root / "models" / teacher,
        encoder=root / "models" / name, metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return root / "models" / name


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store, features, and an encoder aligned with them; outside of the repository, where nothing is tracked."""
    root = tmp_path_factory.mktemp("aligned")
    store = write_objects(root / "data")
    write_teachers(
        root / "features", store.uids.tolist(), store.categories.tolist(), classes=CLASSES,
        dataset_digest=store.info.digest, without_text=[0], without_views=[1],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_align(root, "align", epochs=15)
        run_align(root, "short")
        yield root


def test_alignment_learns_to_name_shapes_and_writes_everything(workspace: Path) -> None:
    found = json.loads((workspace / "results/align/result.json").read_text())
    scores = [run for run in found["runs"] if run["task"] == "text_classification"]
    assert [run["seed"] for run in scores] == [0, 1]
    assert all(run["top1"] >= 70 for run in scores)  # guessing: 33
    assert all(run["num_test"] == 12 and run["num_classes"] == 3 for run in scores)
    asked = {(run["modality"], run["query"]) for run in found["runs"] if run["task"] == "retrieval"}
    assert asked == {("text", "words"), ("image", "look"), ("image", "sight_rgb"), ("image", "sight_depth")}
    assert found["encoder"]["labels"] == "captions"
    assert found["protocol"]["num_aligned"] == 24
    for file in ("encoder.safetensors", "heads.safetensors", "heads.json", "README.md", "curves.csv"):
        assert (workspace / "models/align" / file).is_file()
    with np.load(workspace / "results/align/predictions.npz", allow_pickle=False) as file:
        for run, hits in zip(scores, file["hit1"], strict=True):
            assert 100 * hits.mean() == pytest.approx(run["top1"], abs=1e-3)
    metrics = json.loads((workspace / "align.json").read_text())["metrics"]
    assert metrics["seen/top1/mean"] == pytest.approx(np.mean([run["top1"] for run in scores]))
    interval = next(each for each in found["intervals"] if each["metric"] == "top1")
    assert interval["low"] <= interval["mean"] <= interval["high"] <= 100
    assert interval["chance"] == pytest.approx(100 / 3)


def test_later_seeds_embed_only_what_is_tested_and_find_the_same(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded, embed = [], Heads.embed

    def record(self: Heads, feature: torch.Tensor, teacher: str | None = None) -> torch.Tensor:
        embedded.extend([len(feature)] * (teacher is None and not self.training))
        return embed(self, feature, teacher)

    monkeypatch.setattr(Heads, "embed", record)
    test = {"draws": 2, "resamples": 200, "confidence": 0.95}
    both = run_align(workspace, "both_seeds", test=test | {"seeds": [0, 1]}, held_out=["ball", "plate"], epochs=1)
    assert sum(embedded) == 2 * (36 + 12 + 16)  # all; then test objects, and training objects that were held out
    alone = run_align(workspace, "one_seed", test=test | {"seeds": [1]}, held_out=["ball", "plate"], epochs=1)
    assert sum(embedded) == 2 * (36 + 12 + 16 + 36)
    assert [run for run in both["runs"] if run["seed"] == 1] == alone["runs"] != []


TOGETHER = {
    "order": "together", "mask": "random", "mask_ratio": 0.5, "decoder_depth": 1, "decoder_heads": 6,
    "local_weight": 1.0, "shuffle": True, "global_depth": 1, "momentum": 0.9,
}  # fmt: skip
FIRST = {"order": "first", "mask": "random", "mask_ratio": 0.5, "decoder_depth": 1, "decoder_heads": 6, "epochs": 1}


def test_joint_training_has_the_losses_of_both_stages_and_writes_an_aligned_encoder(workspace: Path) -> None:
    found = run_align(workspace, "joint", masked=TOGETHER)
    folder = workspace / "models/joint"
    (header, *rows) = csv.reader((folder / "curves.csv").open())
    assert {"loss/text", "loss/look", "loss/sight", "loss/local", "loss/global"} <= set(header)
    parts = [header.index(name) for name in header if name.startswith("loss/")]
    for row in rows:
        assert float(row[header.index("loss")]) == pytest.approx(sum(float(row[i]) for i in parts), rel=1e-4)
    plain, joint = (load_encoder_module(workspace / "models" / name)[0] for name in ("short", "joint"))
    assert plain.state_dict().keys() == joint.state_dict().keys()
    assert any(not torch.equal(value, joint.state_dict()[name]) for name, value in plain.state_dict().items())
    assert found["encoder"]["labels"] == "captions"


def test_reversed_order_aligns_an_encoder_that_has_learned_to_fill_in_points(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for method in (Distill, Align):
        forward = method.forward

        def record(self: Any, batch: Any, forward: Any = forward, name: str = method.__name__) -> Any:
            order.append(name)
            return forward(self, batch)

        monkeypatch.setattr(method, "forward", record)
    run_align(workspace, "reversed", masked=FIRST)
    assert order == ["Distill"] * 3 + ["Align"] * 6
    (header, row) = csv.reader((workspace / "models/reversed/curves_first.csv").open())
    assert header[:3] == ["epoch", "loss", "loss/local"]
    assert float(row[1]) > 0
    assert not list((workspace / "state").glob("align*/*"))


def test_reversed_order_resumes_in_its_second_part_bit_by_bit(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_align(workspace, "reversed-whole", masked=FIRST)
    calls, forward = 0, Align.forward

    def interrupt(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    monkeypatch.setattr(Align, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_align(workspace, "reversed-resumed", masked=FIRST)
    run_align(workspace, "reversed-resumed", masked=FIRST)
    whole, resumed = (workspace / f"models/reversed-{each}/encoder.safetensors" for each in ("whole", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_sections_without_masked_modelling_are_written_as_before_it_existed() -> None:
    assert not {"masked", "detached_gather", "shared_head"} & align_params().model_dump().keys()
    assert align_params(masked=FIRST).model_dump()["masked"]["order"] == "first"


def test_index_holds_all_objects_in_the_space_of_the_text_teacher(workspace: Path) -> None:
    store, index = ObjectStore(workspace / "data"), ShapeIndex(workspace / "results/align")
    assert index.uids.tolist() == store.uids.tolist()
    embedding = np.concatenate(list(index.blocks()))
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    heads, card = load_heads(workspace / "models/align")
    assert card.encoder_sha256 == index.info.encoder_sha256 == read_card(workspace / "models/align").weights_sha256
    assert (index.path / index.info.features).resolve() == workspace / "features"
    assert embedding.shape[1] == heads.text.out_features


def test_alignment_repeats_itself(workspace: Path) -> None:
    run_align(workspace, "again")
    for file in ("encoder.safetensors", "heads.safetensors"):
        assert (workspace / "models/again" / file).read_bytes() == (workspace / "models/short" / file).read_bytes()


@pytest.mark.parametrize("stage", ["align", "distill"])
def test_interrupted_stage_resumes_bit_by_bit(workspace: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, method = (run_align, Align) if stage == "align" else (run_distill, Distill)
    name, calls, forward = f"{stage}-whole", 0, method.forward
    run(workspace, name)

    def interrupt(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    monkeypatch.setattr(method, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, f"{stage}-resumed")
    assert calls == 4
    assert not (workspace / "models" / f"{stage}-resumed").exists()
    run(workspace, f"{stage}-resumed")
    whole, resumed = (workspace / "models" / each / "encoder.safetensors" for each in (name, f"{stage}-resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_captions_and_views_of_test_objects_do_not_touch_the_weights(workspace: Path) -> None:
    store = ObjectStore(workspace / "data")
    rows = training_rows(store, splits=["train"], held_out=[])
    assert not set(store.uids[rows]) & set(store.uids[store.rows("test")])
    write_teachers(
        workspace / "spoiled", store.uids.tolist(), store.categories.tolist(), classes=CLASSES,
        dataset_digest=store.info.digest, without_text=[0], without_views=[1], noise_rows=store.rows("test").tolist(),
    )  # fmt: skip
    run_align(workspace, "spoiled", features="spoiled")
    for file in ("encoder.safetensors", "heads.safetensors"):
        assert (workspace / "models/spoiled" / file).read_bytes() == (workspace / "models/short" / file).read_bytes()


def test_held_out_class_is_never_seen_and_reported_on_its_own(workspace: Path) -> None:
    store = ObjectStore(workspace / "data")
    rows = training_rows(store, splits=["train"], held_out=["needle", "plate"])
    assert set(store.categories[rows]) == {"ball"}
    found = run_align(workspace, "held-out", held_out=["needle", "plate"], epochs=1)
    scores = {run["classes"]: run for run in found["runs"] if run["task"] == "text_classification"}
    assert set(scores) == {"held_out"}  # a single class is left: nothing to choose from among the seen ones
    assert (scores["held_out"]["num_test"], scores["held_out"]["num_classes"]) == (24, 2)
    assert scores["held_out"]["chance"] == {"top1": 50.0, "top3": 100.0, "top5": 100.0}
    assert found["protocol"]["held_out"] == ["needle", "plate"]
    assert found["protocol"]["captions_dropped"] == 0  # captions of balls name balls only
    with pytest.raises(ParamsError, match=r"no class 'neddle' .* did you mean 'needle'"):
        run_align(workspace, "misspelt", held_out=["neddle"])


def test_captions_with_the_word_of_a_held_out_class_are_dropped(workspace: Path, tmp_path: Path) -> None:
    """Features whose captions call everything a ball: with balls held out, their words are in no caption used."""
    store = ObjectStore(workspace / "data")
    write_teachers(
        workspace / "balls", store.uids.tolist(), ["ball"] * len(store), classes=CLASSES,
        dataset_digest=store.info.digest,
    )  # fmt: skip
    found = run_align(workspace, "balls", features="balls", held_out=["ball"], epochs=1)
    assert found["protocol"]["captions_dropped"] == 2 * found["protocol"]["num_aligned"] == 2 * 16
    shutil.rmtree(workspace / "results/balls")


def test_class_names_instead_of_captions_are_labels(workspace: Path) -> None:
    """With names, captions are not looked at: those that call every object a ball change no weight."""
    found = run_align(workspace, "names", captions="names")
    store = ObjectStore(workspace / "data")
    assert (
        found["encoder"]["labels"] == read_card(run_distill(workspace, "names2", teacher="names")).labels == "classes"
    )
    assert (found["protocol"]["num_aligned"], found["protocol"]["category_words"]) == (24, True)
    assert read_aligned_text(workspace / "models/names").words == ("ball", "needle", "plate")
    write_teachers(
        workspace / "miscalled", store.uids.tolist(), store.categories.tolist(), classes=CLASSES,
        dataset_digest=store.info.digest, without_text=range(36), without_views=[1],
    )  # fmt: skip
    run_align(workspace, "names_only", features="miscalled", captions="names")
    for file in ("encoder.safetensors", "heads.safetensors"):
        assert (workspace / "models/names" / file).read_bytes() == (workspace / "models/names_only" / file).read_bytes()
    run_align(workspace, "names_held_out", captions="names", held_out=["ball"], epochs=1)
    assert read_aligned_text(workspace / "models/names_held_out").words == ("needle", "plate")


def test_sharing_a_projection_needs_teachers_of_one_model(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="shared_head: no image teacher is of the model of the text teacher 'words'"):
        run_align(workspace, "shared", shared_head=True)
    text, images = choose_teachers(FeatureStore(workspace / "features"), text=None, images=None)
    sight = replace(text, dim=8, model="sight")  # as CLIP's two towers
    method = _build(align_params(shared_head=True), FeatureStore(workspace / "features"), sight, images)
    assert method.heads.with_text == ["sight"]


def test_features_of_another_store_are_refused(workspace: Path) -> None:
    store = ObjectStore(workspace / "data")
    write_teachers(workspace / "foreign", store.uids.tolist(), store.categories.tolist(), classes=CLASSES)
    with pytest.raises(DataError, match=r"made from another prepared store .* run `pointloom embed` again"):
        run_align(workspace, "foreign", features="foreign")
    assert not (workspace / "models/foreign").exists()


@pytest.mark.parametrize("changed", [
    {}, {"global_term": False}, {"shuffle": False}, {"global_term": False, "shuffle": False},
    {"local_target": "points"}, {"local_target": "none"}, {"student": "fresh"}, {"encoder_args": {"drop_path": 0.1}},
])  # fmt: skip
def test_every_row_of_the_ablations_can_be_distilled(workspace: Path, changed: dict[str, Any]) -> None:
    folder = run_distill(workspace, "distill", **changed)
    encoder, card = load_encoder_module(folder)
    assert (card.method, card.labels) == ("distill", "captions")
    assert card.parent_sha256 == read_card(workspace / "models/align").weights_sha256
    assert encoder.cls_token is not None  # type: ignore[union-attr]
    assert (folder / "samples.npz").exists() == (changed.get("local_target", "tokens") == "tokens")


@pytest.mark.slow
def test_hierarchical_encoders_go_through_both_stages(workspace: Path) -> None:
    every = SAMPLING | {"num_points": 64}
    args = {"scales": 2, "depth": 1, "drop_path": 0.0}
    run_align(workspace, "scales", encoder="point_m2ae_tiny", encoder_args=args, sampling=every, epochs=1)
    before = load_encoder_module(workspace / "models/scales")[0].state_dict()
    for target in ("tokens", "multi", "points"):
        folder = run_distill(workspace, f"scales-{target}", teacher="scales", local_target=target, sampling=every)
        encoder, card = load_encoder_module(folder)
        assert (card.builder, card.method, card.labels) == ("point_m2ae_tiny", "distill", "captions")
        for scale in (0, 1):
            name = f"transformers.{scale}.blocks.0.mlp.fc1.weight"
            assert not torch.equal(encoder.state_dict()[name], before[name])  # type: ignore[union-attr]
        first, *_, last = csv.DictReader((folder / "curves.csv").open())
        assert float(last["loss/local"]) < float(first["loss/local"])


def test_fewer_points_than_patches_are_refused_before_training(workspace: Path) -> None:
    few = SAMPLING | {"num_points": 16}
    with pytest.raises(ParamsError, match="align: clouds of 16 points cannot be cut into 17 patches of 8 points"):
        run_align(workspace, "few", sampling=few, encoder_args=ENCODER_ARGS | {"num_groups": 17})
    with pytest.raises(ParamsError, match="distill: clouds of 16 points cannot be cut into 8 patches of 24"):
        run_distill(workspace, "few", sampling=few, encoder_args={"group_size": 24})


def test_distillation_repeats_itself_and_shows_what_it_learned(workspace: Path) -> None:
    first = run_distill(workspace, "first")
    second = run_distill(workspace, "second")
    assert (first / "encoder.safetensors").read_bytes() == (second / "encoder.safetensors").read_bytes()
    with np.load(first / "samples.npz", allow_pickle=False) as samples:
        assert np.isin(samples["uid"], ObjectStore(workspace / "data").uids).all()
        assert samples["cosine"].shape == samples["hidden"].shape == samples["centers"].shape[:2]
        assert samples["visible"].shape == samples["coord"].shape[:2]


def test_teacher_that_knows_other_objects_is_refused(workspace: Path) -> None:
    folder = workspace / "models/stranger"
    shutil.copytree(workspace / "models/align", folder)
    card = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(card | {"data_digest": "0" * 64}))
    with pytest.raises(DataError, match=r"trained on data 000000000000, .* may be test objects here"):
        run_distill(workspace, "stranger-student", teacher="stranger")
    (folder / "encoder.json").write_text(json.dumps(card | {"method": "untrained"}))
    with pytest.raises(CheckpointError, match="an untrained encoder teaches nothing"):
        run_distill(workspace, "stranger-student", teacher="stranger")
    with pytest.raises(ParamsError, match="distill: nothing to learn"):
        run_distill(workspace, "nothing", local_target="none", global_term=False)


def test_training_objects_of_one_class_are_nothing_to_learn_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pointloom")
    store, feature = write_objects(tmp_path / "data"), np.zeros((36, 1), dtype=np.float32)
    found = labelled_split(store, feature)
    assert found is not None
    assert (len(found.train), len(found.test)) == (24, 12)
    assert can_classify(store, "fine-tuning")
    store.labels[store.rows("train")] = 0
    assert labelled_split(store, feature) is None
    assert not can_classify(store, "fine-tuning")
    assert "fine-tuning: skipped, it needs training objects of two classes" in caplog.text


@pytest.mark.parametrize("name", ["align", "first"])
def test_encoders_of_both_stages_can_be_probed_and_fine_tuned(workspace: Path, name: str) -> None:
    if name == "first":
        run_distill(workspace, "first")
    probing = ObjectProbeParams.model_validate({
        "encoder": name, "seeds": [0], "draws": 1, "precision": "fp32", "sampling": SAMPLING,
        "svm": {"C": [0.1], "folds": 2}, "linear": None, "mlp3": None, "few_shot": None,
    })  # fmt: skip
    tuning = ClassificationParams.model_validate({
        "encoder": name, "encoder_args": {"class_token": True, "drop_path": 0.1}, "head": "linear", "seeds": [0],
        "label_epochs": {1.0: 1}, "batch_size": 8, "label_smoothing": 0.1, "votes": 1, "selection": "last",
        "sampling": SAMPLING, "optim": OPTIM,
    })  # fmt: skip
    for stage, params in ((probe, probing), (finetune, tuning)):
        stage(  # type: ignore[operator]
            params, dataset=workspace / "data", encoder=workspace / "models" / name,
            result=workspace / "results" / f"{stage.__name__}-{name}", metrics=workspace / "metrics.json",
            state=workspace / "state",
        )  # fmt: skip
        found = json.loads((workspace / "results" / f"{stage.__name__}-{name}" / "result.json").read_text())
        assert found["encoder"]["labels"] == "captions"
