"""Probes of frozen scene features as a stage: records, determinism, what cannot work."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pointloom.data.scene_store import write_scenes
from pointloom.data.scenes import Scene, SceneBoxes, Sentence
from pointloom.errors import CheckpointError, DataError, ParamsError
from pointloom.models import build_scene_encoder
from pointloom.report.scene_tables import PROTOCOLS
from pointloom.stages.pretrain_methods.untrained import UntrainedParams, write_untrained
from pointloom.stages.probe import probe
from pointloom.stages.probe_grounding import GroundingParams, SentenceReader, boxes_of_scene
from pointloom.stages.probe_scenes import SceneProbeParams
from pointloom.structures import as_module
from pointloom.tasks.scene_probing import (
    LinearProbe,
    NearestProbe,
    PointFeatures,
    fit_linear_probe,
    join_superpoints,
)
from pointloom.train.checkpoint import save_encoder
from tests.teachers.tiny import write_clip_folder

CLASSES = ("floor", "red", "blue")
HEADS = {"epochs": 4, "lr": 0.02}
VALUES: dict[str, Any] = {
    "task": "scenes", "encoder": "scratch", "seeds": [0], "fractions": [1.0, 0.5], "points_per_scene": 400,
    "precision": "fp32", "linear": HEADS, "nearest": "cosine",
    "instances": HEADS | {"ignored": ["floor"], "radius": 0.1, "smallest": 20},
    "grounding": HEADS | {"text": "bag_of_words", "dim": 16, "batch_size": 4},
}  # fmt: skip


def scene(number: int, split: str, *, labelled: bool = True) -> Scene:
    """A floor with a red and a blue block, and a sentence about each."""
    rng = np.random.default_rng(number)
    floor = np.column_stack([rng.uniform(-1, 1, (300, 2)), np.zeros(300)])
    center = np.array([[-0.5, 0.5, 0.2], [0.5, -0.5, 0.2]]) * rng.choice([-1, 1])
    center[:, 2] = 0.2
    blocks = [middle + rng.uniform(-0.2, 0.2, (150, 3)) for middle in center]
    segment = np.repeat([0, 1, 2], [300, 150, 150]).astype(np.int16)
    color = np.array([[90, 90, 90], [220, 30, 30], [30, 30, 220]], dtype=np.uint8)[segment]
    if not labelled:
        segment = np.full_like(segment, -1)
    return Scene(
        name=f"room{number}",
        coord=np.concatenate([floor, *blocks]).astype(np.float32),
        color=color,
        normal=None,
        segment=segment,
        instance=np.repeat([-1, 4, 7], [300, 150, 150]).astype(np.int32),
        boxes=SceneBoxes(
            center=center.astype(np.float32),
            size=np.full((2, 3), 0.4, dtype=np.float32),
            heading=np.zeros(2, dtype=np.float32),
            label=np.array([0, 1]),
            instance=np.array([4, 7]),
        ),
        sentences=(Sentence("the red block", 4, True), Sentence("the blue block", 7, True)),
        split=split,
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "scratch"
    params = {"method": "untrained", "encoder": "hunet_tiny", "encoder_args": {}, "num_points": 512, "seed": 0}
    write_untrained(UntrainedParams.model_validate(params), folder)
    return folder


def store(folder: Path, scenes: list[Scene]) -> Path:
    write_scenes(folder, scenes, classes=CLASSES, box_classes=("red", "blue"), source="test", settings={})
    return folder


def run(data: Path, encoder: Path, base: Path, name: str = "random", **changes: Any) -> dict[str, Any]:
    params = SceneProbeParams.model_validate(VALUES | changes)
    folder = base / name
    probe(params, dataset=data, encoder=encoder, result=folder, metrics=base / f"{name}.json", state=base / "state")
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return store(tmp_path / "data", [scene(i, "train" if i < 4 else "test") for i in range(6)])


def test_every_protocol_leaves_a_record_per_seed_and_share_and_a_second_run_the_same(
    data: Path, encoder: Path, tmp_path: Path
) -> None:
    found = run(data, encoder, tmp_path)
    kinds = [(record["protocol"], record["fraction"]) for record in found["runs"]]
    assert kinds == [(p, f) for f in (1.0, 0.5) for p in ("linear", "nearest", "instances", "grounding")]
    assert {p for p, _ in kinds} <= set(PROTOCOLS)
    by_name = {r["protocol"]: r for r in found["runs"] if r["fraction"] == 1.0}
    assert by_name["linear"]["oa"] > 80  # colours tell the classes, random features keep them
    assert by_name["grounding"]["chance"] == 50
    assert by_name["grounding"]["sentences"] == 4
    with np.load(tmp_path / "random" / "predictions.npz") as kept:
        assert kept["confusion"].shape == (8, 2, 3, 3)
        assert kept["confusion"][0].sum() == 1200
    with np.load(tmp_path / "random" / "scenes.npz") as shown:
        assert shown["coord"].shape == (1200, 3)
        assert shown["offset"].tolist() == [600, 1200]
    assert run(data, encoder, tmp_path, "again")["runs"] == found["runs"]


def test_every_protocol_works_on_features_of_point_transformer_as_mm3dscene_leaves_them(
    data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "mm3dscene"
    save_encoder(
        folder, as_module(build_scene_encoder("point_transformer_tiny", voxel_size=0.1)),
        builder="point_transformer_tiny", builder_args={"voxel_size": 0.1}, method="mm3dscene", labels="none",
        num_points=512, data_digest=None, params={},
    )  # fmt: skip
    found = run(data, folder, tmp_path, fractions=[1.0], seeds=[0, 1], linear=HEADS | {"epochs": 30})
    kinds = ["linear", "nearest", "instances", "grounding"]
    assert [(record["protocol"], record["seed"]) for record in found["runs"]] == [(p, s) for s in (0, 1) for p in kinds]
    scores = {record["protocol"]: record for record in found["runs"]}
    assert scores["linear"]["oa"] > 80
    assert all(0 <= scores["instances"][name] <= 100 for name in ("ap", "ap50", "ap25"))


def test_superpoints_of_a_scan_may_have_any_numbers_and_a_class_without_points_counts_as_0(
    encoder: Path, tmp_path: Path
) -> None:
    scenes = [scene(i, "train" if i < 2 else "test") for i in range(3)]
    found: list[dict[str, Any]] = []
    alone: dict[str, Any] = {"linear": None, "instances": None, "grounding": None, "fractions": [1.0]}
    for step in (1, 10**7):  # an array as long as the largest number would not fit into memory
        numbered = [
            replace(each, sentences=(), superpoint=(np.arange(600) // 10 * step).astype(np.int32)) for each in scenes
        ]
        names = {"classes": (*CLASSES, "green"), "box_classes": ("red", "blue")}
        write_scenes(tmp_path / "data", numbered, **names, source="test", settings={})
        found += run(tmp_path / "data", encoder, tmp_path, **alone)["runs"]
    assert [record["protocol"] for record in found] == ["nearest", "nearest"]
    assert found[0] == found[1]
    assert found[0]["miou"] == pytest.approx(0.75 * found[0]["miou_present"])


def test_features_of_some_resolutions_are_their_columns_of_all_features(
    data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def kept(features: PointFeatures, **settings: Any) -> LinearProbe:
        seen.append(features.feature)
        return fit_linear_probe(features, **settings)

    monkeypatch.setattr("pointloom.tasks.scene_probing.fit_linear_probe", kept)
    alone: dict[str, Any] = {"nearest": None, "instances": None, "grounding": None, "fractions": [1.0]}
    assert "levels" not in run(data, encoder, tmp_path, **alone)["protocol"]
    found = run(data, encoder, tmp_path, levels=[4, 2], **alone)
    assert found["protocol"]["levels"] == [4, 2]
    assert (seen[0].shape[1], seen[1].shape[1]) == (32 + 48 + 64 + 96, 48 + 96)
    assert np.array_equal(seen[1], seen[0][:, [*range(32, 80), *range(144, 240)]])
    with pytest.raises(ParamsError, match=r"resolutions 1 to 4, got \[5\]"):
        run(data, encoder, tmp_path, levels=[1, 5], **alone)


def test_labels_of_a_few_drawn_points_are_all_that_heads_see(
    data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Any]] = {"linear": [], "nearest": []}

    def linear(features: PointFeatures, **settings: Any) -> LinearProbe:
        seen["linear"].append(features.label)
        return fit_linear_probe(features, **settings)

    def nearest(scenes: Sequence[tuple[np.ndarray, np.ndarray]]) -> NearestProbe:
        seen["nearest"].append([len(label) for _, label in scenes])
        return join_superpoints(scenes)

    monkeypatch.setattr("pointloom.tasks.scene_probing.fit_linear_probe", linear)
    monkeypatch.setattr("pointloom.tasks.scene_probing.join_superpoints", nearest)
    few: dict[str, Any] = {"grounding": None, "fractions": [1.0], "seeds": [0, 1], "labelled_points": 5}
    found = run(data, encoder, tmp_path, **few)
    assert found["protocol"]["labelled_points"] == 5
    assert [len(label) for label in seen["linear"]] == [4 * 5, 4 * 5]
    assert all(0 < number <= 5 for each in seen["nearest"] for number in each)
    assert {record["protocol"] for record in found["runs"]} == {"linear", "nearest", "instances"}
    with np.load(tmp_path / "random" / "predictions.npz") as kept:
        assert kept["confusion"][0].sum() == 1200  # all test points keep their labels
    with pytest.raises(ValidationError, match="grounding must be null"):
        run(data, encoder, tmp_path, labelled_points=5)


def test_grounding_reads_sentences_with_a_clip_model_of_this_machine(
    data: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTLOOM_MODELS", str(tmp_path))
    model = {"weights": "tiny", "architecture": None, "quick_gelu": None}
    heads = {"epochs": 60, "lr": 0.005, "batch_size": 8, "text": "clip", "dim": None, "clip": model}
    alone: dict[str, Any] = {"linear": None, "nearest": None, "instances": None, "fractions": [1.0]}
    with pytest.raises(CheckpointError, match=r"no weights at .*tiny"):
        run(data, encoder, tmp_path, grounding=heads, **alone)
    write_clip_folder(tmp_path / "tiny")
    found = run(data, encoder, tmp_path, grounding=heads, **alone)
    assert found["protocol"]["grounding"]["clip"] == model
    (record,) = found["runs"]
    assert (record["sentences"], record["chance"]) == (4, 50)
    assert record["overall"] == 100  # even a random text tower tells "red" from "blue"
    for wrong in (heads | {"dim": 16}, heads | {"clip": None}, heads | {"text": "bag_of_words", "dim": 16}):
        with pytest.raises(ValidationError, match="text: clip needs"):
            run(data, encoder, tmp_path, grounding=wrong, **alone)


def test_sentences_are_read_once_and_words_are_padded_and_of_length_1(tmp_path: Path) -> None:
    write_clip_folder(tmp_path / "tiny")
    model = {"weights": str(tmp_path / "tiny"), "architecture": None, "quick_gelu": None}
    params = {"epochs": 1, "lr": 0.01, "batch_size": 4, "text": "clip", "dim": None, "clip": model}
    reader = SentenceReader(GroundingParams.model_validate(params))
    first = reader.read(["the blue block", "the chair", "the blue block"])
    assert first.valid.sum(1).tolist() == [5, 4, 5]
    length = first.word.float().norm(dim=-1)
    assert torch.allclose(length[first.valid], torch.ones(14), atol=2e-3)
    assert not length[~first.valid].any()
    assert torch.equal(first.word[0], first.word[2])
    reader._clip.encode_words = None  # what was read is known
    again = reader.read(["the chair"])
    assert torch.equal(again.sentence[0], first.sentence[1])
    assert again.word.shape == (1, 4, 32)


def test_sentences_may_mean_objects_of_classes_that_the_data_set_does_not_know() -> None:
    room = scene(0, "test")
    pillow = np.flatnonzero(room.instance == 7)[:30]
    segment, instance = room.segment.copy(), room.instance.copy()
    segment[pillow], instance[pillow] = -1, 9
    feature = np.random.default_rng(0).random((600, 3), dtype=np.float32)
    said = (*room.sentences, Sentence("the pillow on the blue block", 9, True), Sentence("a ghost", 11, True))
    found = boxes_of_scene(replace(room, segment=segment, instance=instance, sentences=said), feature)
    assert found is not None
    assert (len(found.center), found.target) == (3, (0, 1, 2))  # no box for the floor, which has a class
    low, high = room.coord[pillow].min(axis=0), room.coord[pillow].max(axis=0)
    np.testing.assert_allclose(found.center[2] + room.coord.mean(axis=0), (low + high) / 2, atol=1e-6)
    inside = ((room.coord >= low) & (room.coord <= high)).all(axis=1)
    np.testing.assert_allclose(found.feature[2], feature[inside].mean(axis=0), rtol=1e-5)


def test_grounding_without_sentences_is_refused_before_anything_is_encoded(encoder: Path, tmp_path: Path) -> None:
    silent = [replace(scene(i, split), sentences=() if i == 1 else scene(i, split).sentences)
              for i, split in enumerate(("train", "test"))]  # fmt: skip
    with pytest.raises(DataError, match=r"no sentences about its test scenes.*set grounding: null"):
        run(store(tmp_path / "data", silent), encoder, tmp_path)
    assert not (tmp_path / "random").exists()


def test_unknown_class_without_instances_is_refused(data: Path, encoder: Path, tmp_path: Path) -> None:
    instances = VALUES["instances"] | {"ignored": ["ground"]}
    with pytest.raises(ParamsError, match="ground"):
        run(data, encoder, tmp_path, instances=instances)
    assert not (tmp_path / "random").exists()


def test_scenes_without_labels_or_test_split_are_refused(encoder: Path, tmp_path: Path) -> None:
    bare = store(tmp_path / "bare", [scene(0, "train", labelled=False), scene(1, "test")])
    for left_out in ({}, {"linear": None, "nearest": None}):
        with pytest.raises(DataError, match="labelled training scenes"):
            run(bare, encoder, tmp_path, **left_out)
    alone = store(tmp_path / "alone", [scene(0, "train")])
    with pytest.raises(DataError, match="no test scene"):
        run(alone, encoder, tmp_path)


@pytest.mark.parametrize("box_classes", [(), ("sofa",)])
def test_scans_without_classes_of_points_are_skipped(
    encoder: Path, tmp_path: Path, box_classes: tuple[str, ...]
) -> None:
    scan = replace(scene(0, "pretrain", labelled=False), boxes=None, sentences=())
    write_scenes(tmp_path / "scans", [scan], classes=(), box_classes=box_classes, source="scans", settings={})
    found = run(tmp_path / "scans", encoder, tmp_path)
    assert (found["task"], found["runs"], found["data"]["classes"]) == ("scene_probe", [], [])
    assert not (tmp_path / "random" / "scenes.npz").exists()
