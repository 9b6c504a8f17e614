import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data.feature_files import FeatureInfo, FeaturesInfo, ObjectFeatures, write_features
from pointloom.data.features import FeatureStore
from pointloom.errors import CheckpointError
from pointloom.teachers import open_text_teacher
from pointloom.teachers.clip import load_clip
from pointloom.teachers.offline_text import fit_bag_of_words
from tests.teachers.tiny import write_clip_folder

CPU = torch.device("cpu")


def store_of(folder: Path, dim: int, reopen: dict[str, object]) -> FeatureStore:
    teacher = FeatureInfo("text", "text", "captions", "m", dim, "k")
    info = FeaturesInfo((teacher,), (), "d", "v", "c", True, 1, 0)
    folder.mkdir()
    one = ObjectFeatures("o", ("a",), (0,), {"text": np.ones((1, dim), dtype=np.float32)})
    write_features(folder, [one], info=info, class_text={}, reopen={"text": reopen})
    return FeatureStore(folder)


def test_the_embedded_teacher_answers_with_its_vocabulary(tmp_path: Path) -> None:
    bag = fit_bag_of_words(["red chair", "blue lamp"], dim=32, idf_power=1.0)
    teacher = open_text_teacher(store_of(tmp_path / "f", 32, json.loads(json.dumps(bag.saved()))), "text")
    found = teacher.encode(["red lamps", "blue"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    raw = bag.encode_text(["red lamp"])[0]
    np.testing.assert_allclose(found[0], raw / np.linalg.norm(raw), atol=1e-6)
    assert teacher.vocabulary == ["blue", "chair", "lamp", "red"]
    assert teacher.unknown_words("a red sofa") == ["a", "sofa"]


def test_clip_is_opened_again_only_with_the_same_weights(tmp_path: Path) -> None:
    write_clip_folder(tmp_path / "clip")
    clip = load_clip(str(tmp_path / "clip"), device=CPU)
    options = {"weights": str(tmp_path / "clip"), "architecture": None, "quick_gelu": None, "precision": "fp32"}
    reopen = {"teacher": "clip", **options, "identity": clip.identity}
    store = store_of(tmp_path / "f", 32, reopen)
    teacher = open_text_teacher(store, "text")
    raw = clip.encode_text(["a chair"])[0]
    np.testing.assert_allclose(teacher.encode(["a chair"])[0], raw / np.linalg.norm(raw), atol=1e-6)
    assert teacher.vocabulary is None
    assert teacher.unknown_words("a zzyzx chair") == []
    write_clip_folder(tmp_path / "other", seed=5)
    (tmp_path / "other/open_clip_model.safetensors").replace(tmp_path / "clip/open_clip_model.safetensors")
    made = clip.identity["weights_sha256"][:12]
    with pytest.raises(CheckpointError, match=rf"are not those that made the features 'text' in .* \({made}\)"):
        open_text_teacher(store, "text")
