"""Stage probe with an aligned encoder: names of objects of another store, and what of that may be called zero-shot."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointloom.data.aligned_text import AlignedText, all_words, read_aligned_text
from pointloom.data.shards import ObjectStore
from pointloom.errors import CheckpointError
from pointloom.methods.align import load_heads
from pointloom.stages.probe import ObjectProbeParams, probe
from pointloom.teachers.offline_text import fit_bag_of_words
from pointloom.teachers.prompts import PROMPTS
from pointloom.train.checkpoint import load_encoder_module
from tests.data.teacher_files import TEXT, texts, write_teachers
from tests.stages.test_alignment import CLASSES, SAMPLING, run_align, write_objects


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An encoder that is aligned with the captions of one store, through a real text teacher."""
    root = tmp_path_factory.mktemp("named")
    store = write_objects(root / "data")
    tower = fit_bag_of_words([text for name in CLASSES for text in texts(name, 0)], dim=TEXT, idf_power=1.0)
    write_teachers(
        root / "features", store.uids.tolist(), store.categories.tolist(), classes=CLASSES,
        dataset_digest=store.info.digest, tower=tower,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_align(root, "align", epochs=15, captions="top")
        yield root


def name_objects(root: Path, dataset: Path, encoder: Path) -> dict[str, Any]:
    params = ObjectProbeParams.model_validate({
        "encoder": "align", "seeds": [0], "draws": 1, "precision": "fp32", "sampling": SAMPLING, "svm": None,
        "linear": None, "mlp3": None, "few_shot": None, "text": {"prompts": "averaged_64", "class_names": "clean"},
    })  # fmt: skip
    probe(
        params, dataset=dataset, encoder=encoder, result=root / "result", metrics=root / "metrics.json",
        state=root / "state",
    )  # fmt: skip
    return dict(json.loads((root / "result" / "result.json").read_text()))


def test_objects_of_another_store_are_named_as_by_hand(aligned: Path, tmp_path: Path) -> None:
    store = write_objects(tmp_path / "other", seed=1)
    found = name_objects(tmp_path, tmp_path / "other", aligned / "models/align")
    (run,) = found["runs"]
    assert (run["protocol"], run["num_test"], run["num_classes"], run["classes_named"]) == ("text", 12, 3, 3)
    assert run["oa"] == run["top1"] >= 70  # guessing: 33
    with np.load(tmp_path / "result/features.npz", allow_pickle=False) as file:
        rows = store.rows("test")
        embedding = load_heads(aligned / "models/align")[0].embed(torch.from_numpy(file["feature"][rows]))
    tower = fit_bag_of_words([text for name in CLASSES for text in texts(name, 0)], dim=TEXT, idf_power=1.0)
    classes = []
    for name in CLASSES:
        vectors = tower.encode_text([prompt.replace("{}", name) for prompt in PROMPTS["averaged_64"]])
        mean = np.mean([vector / max(np.linalg.norm(vector), 1e-12) for vector in vectors], axis=0)
        classes.append(mean / np.linalg.norm(mean))
    with np.load(tmp_path / "result/predictions.npz", allow_pickle=False) as file:
        assert file["protocol"].tolist() == ["text"]
        assert file["prediction"][0].tolist() == (embedding.detach().numpy() @ np.stack(classes).T).argmax(1).tolist()
        assert run["oa"] == pytest.approx(100 * (file["prediction"][0] == file["label"]).mean())


def test_only_classes_that_no_caption_names_count_as_zero_shot(aligned: Path, tmp_path: Path) -> None:
    write_objects(tmp_path / "mixed", ("ball", "long_wand", "saucer"), seed=2)
    text, unseen = name_objects(tmp_path, tmp_path / "mixed", aligned / "models/align")["runs"]
    assert (text["protocol"], text["num_classes"], text["num_test"], text["classes_named"]) == ("text", 3, 12, 1)
    assert (unseen["protocol"], unseen["num_classes"], unseen["num_test"]) == ("zero_shot", 2, 8)
    assert unseen["classes_named"] == 0
    assert unseen["chance"]["top1"] == 50
    with np.load(tmp_path / "result/predictions.npz", allow_pickle=False) as file:
        assert file["protocol"].tolist() == ["text"]  # the other one leaves objects out
    write_objects(tmp_path / "unseen", ("globe", "wand", "saucer"), seed=3)
    (run,) = name_objects(tmp_path, tmp_path / "unseen", aligned / "models/align")["runs"]
    assert (run["protocol"], run["num_classes"], run["num_test"], run["classes_named"]) == ("zero_shot", 3, 12, 0)


def test_words_are_those_of_captions_that_were_aligned_with_in_singular_and_plural(aligned: Path) -> None:
    store = ObjectStore(aligned / "data")
    text = read_aligned_text(aligned / "models/align")
    captions = [caption for row, name in enumerate(store.categories) for caption in texts(str(name), row)]
    training = [c for i, c in enumerate(captions) if store.splits[i // 3] == "train"]
    assert text.words == all_words(training)
    assert text.named(["balls", "Needle", "plate_stack", "wand"]).tolist() == [True, True, True, False]
    assert AlignedText("words", {}, ("shelves",)).named(["shelf", "self"]).tolist() == [True, False]


def test_encoders_that_were_not_aligned_are_refused_before_anything_is_computed(aligned: Path, tmp_path: Path) -> None:
    from pointloom.train.checkpoint import save_encoder

    encoder, card = load_encoder_module(aligned / "models/align")
    (tmp_path / "plain").mkdir()
    save_encoder(
        tmp_path / "plain", encoder, builder=card.builder, builder_args=card.builder_args, method="mae",
        labels="none", num_points=48, data_digest=None, params={},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"heads\.json is missing; give an encoder of `pointloom align`"):
        name_objects(tmp_path, aligned / "data", tmp_path / "plain")
    (tmp_path / "text.json").write_text('{"format": 7}')
    with pytest.raises(CheckpointError, match="format 7, this version reads 1"):
        read_aligned_text(tmp_path)
