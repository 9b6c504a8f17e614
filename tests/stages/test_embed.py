import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pointloom.data.captions import Caption, CaptionsInfo, write_captions
from pointloom.data.features import FeatureStore
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewsInfo, ViewStore, encode_views, write_views
from pointloom.errors import DataError, ParamsError
from pointloom.stages import embed_views
from pointloom.stages.embed import EmbedParams, embed
from pointloom.stages.read_params import validate
from pointloom.teachers import offline_image
from pointloom.teachers.clip import load_clip
from pointloom.teachers.dino import load_dino
from pointloom.teachers.images import depth_image
from pointloom.teachers.offline_image import Descriptor
from pointloom.teachers.prompts import PROMPTS
from tests.captioners.stores import Thing, picture, write_things
from tests.teachers.tiny import write_clip_folder, write_dino_folder

NUM, TRAIN, V = 8, 6, 3
TEXTS = ["red chair", "red chair", "blue lamp", "tall lamp", "a chair", "a lamp", "green chair", "secret lamp"]
WORDS = {
    "name": "words", "teacher": "bag_of_words", "num_captions": 2, "class_names": "clean", "dim": 32, "idf_power": 1.0,
}  # fmt: skip
OFFLINE = [
    {"name": "shape", "teacher": "shape", "dim": 8, "whitening": 0.5},
    {"name": "look", "teacher": "look", "dim": 8, "whitening": 0.5},
]


@pytest.fixture(autouse=True)
def _no_tracking_and_short_descriptors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(offline_image, "CELLS", (32,))


def relief(seed: int) -> np.ndarray:
    """A box in front of a slope on empty background."""
    random = np.random.default_rng(seed)
    depth = np.zeros((32, 32), dtype=np.float32)
    top, left = random.integers(2, 12, 2)
    depth[top:28, left:30] = 2.5 + np.linspace(0, random.random(), 32)[left:30]
    depth[top + 5 : top + 12, left + 4 : left + 12] = 2.2
    return depth


def write_data(root: Path, *, test_seed: int = 0, test_text: str = "secret lamp") -> Path:
    """Eight objects; object 2 has one blind view, object 3 no views, object 4 no caption that is ok."""
    things = [
        Thing(category="chair" if i % 2 else "floor_lamp", split="train" if i < TRAIN else "test") for i in range(NUM)
    ]
    store = write_things(root / "objects", things)
    info = ViewsInfo(
        layout="test", size=32, intrinsics=np.eye(3), poses=np.stack([np.eye(4)] * V), renderer="raycast",
        device="test", settings={}, dataset_digest=store.info.digest,
    )  # fmt: skip
    seeds = [100 * row + (test_seed if row >= TRAIN else 0) for row in range(NUM)]
    (root / "views").mkdir()
    write_views(
        root / "views",
        (
            encode_views(
                str(store.uids[row]), [picture(seeds[row] + v) for v in range(V)],
                [relief(seeds[row] + v) for v in range(V)], valid=[row != 2 or v != 1 for v in range(V)],
            )
            for row in range(NUM) if row != 3
        ),
        info=info,
    )  # fmt: skip
    texts = [*TEXTS[:-1], test_text]
    captions = [
        (str(uid), [Caption(text, None, None, row != 4), Caption("a thing", None, None, row == 0)])
        for row, (uid, text) in enumerate(zip(store.uids, texts, strict=True))
    ]
    (root / "captions").mkdir()
    described = CaptionsInfo("offline", "test", None, None, None, True, None, dataset_digest=store.info.digest)
    write_captions(root / "captions", captions, info=described)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects, views, captions, and tiny models of the real classes."""
    root = write_data(tmp_path_factory.mktemp("data"))
    write_clip_folder(root / "models/clip")
    write_dino_folder(root / "models/dino")
    return root


def networks(data: Path) -> dict[str, Any]:
    clip = {"teacher": "clip", "weights": str(data / "models/clip"), "architecture": None, "quick_gelu": None}
    dino = {"teacher": "dinov2", "weights": str(data / "models/dino")}
    return {
        "text": {"name": "clip_text", "num_captions": 1, "class_names": "clean", "prompts": "averaged_64", **clip},
        "images": [
            {"name": "clip_rgb", "source": "rgb", **clip}, {"name": "clip_depth", "source": "depth", **clip},
            {"name": "dino_depth", "source": "depth", **dino},
        ],
    }  # fmt: skip


def values(**changes: Any) -> dict[str, Any]:
    return {
        "views": "v", "captions": "c", "text": WORDS, "images": OFFLINE, "batch_size": 4, "precision": "fp32",
    } | changes  # fmt: skip


def run(params: dict[str, Any], data: Path, root: Path, name: str = "f") -> FeatureStore:
    embed(
        EmbedParams.model_validate(params), dataset=data / "objects", views=data / "views",
        captions=data / "captions", features=root / "features" / name, metrics=root / f"{name}.json",
        state=root / "state",
    )  # fmt: skip
    return FeatureStore(root / "features" / name, dataset_digest=ObjectStore(data / "objects").info.digest)


def unit(value: np.ndarray) -> np.ndarray:
    return value / np.linalg.norm(value, axis=-1, keepdims=True)


def test_networks_give_the_features_of_the_models_themselves(data: Path, tmp_path: Path) -> None:
    store = run(values(**networks(data)), data, tmp_path)
    views, device = ViewStore(data / "views"), torch.device("cpu")
    clip, dino = (
        load_clip(str(data / "models/clip"), device=device),
        load_dino(str(data / "models/dino"), device=device),
    )
    rgb, depth = views.rgb(views.row_of["u005"]), depth_image(views.depth(views.row_of["u005"]))
    expected = {
        "clip_rgb": clip.encode_image(rgb),
        "clip_depth": clip.encode_image(depth),
        "dino_depth": dino.encode_image(depth),
    }
    rows = np.full(V, store.row_of["u005"])
    for name, value in expected.items():
        found, present = store.read_images(name, rows, np.arange(V))
        assert present.all()
        np.testing.assert_allclose(found, unit(value), atol=2e-3)
        np.testing.assert_allclose(store.norms(name)[rows[0]], np.linalg.norm(value, axis=1), rtol=1e-4)
    found, _ = store.read_text("clip_text", rows[:1], np.zeros(1, dtype=np.int64))
    np.testing.assert_allclose(found, unit(clip.encode_text(["a lamp"])), atol=2e-3)
    prompts = [prompt.format("floor lamp") for prompt in PROMPTS["averaged_64"]]
    by_hand = unit(unit(clip.encode_text(prompts)).mean(axis=0))
    label = store.info.classes.index("floor_lamp")
    np.testing.assert_allclose(store.class_text("clip_text")[label], by_hand, atol=1e-5)


def test_what_is_missing_is_absent(data: Path, tmp_path: Path) -> None:
    store = run(values(), data, tmp_path)
    present = store.images("shape").present
    assert np.argwhere(~present).tolist() == [[2, 1], [3, 0], [3, 1], [3, 2]]
    np.testing.assert_array_equal(store.images("look").present, present)
    text = store.text("words")
    expected = np.zeros((NUM, 2), dtype=bool)
    expected[:, 0], expected[4, 0], expected[0, 1] = True, False, True
    np.testing.assert_array_equal(text.present, expected)
    assert store.texts("u000") == ["red chair", "a thing"]
    assert store.texts("u004") == []
    assert text.text_id[0, 0] == text.text_id[1, 0] != text.text_id[2, 0]
    metrics = json.loads((tmp_path / "f.json").read_text())["metrics"]
    assert metrics["objects_without_text"] == 1
    assert metrics["shape/views_missing"] == 4
    assert metrics["duplicate_text_ratio"] == pytest.approx(2 / 5)  # of five training objects with a caption


def test_test_objects_shape_no_teacher(data: Path, tmp_path: Path) -> None:
    """Other views and captions of the test objects leave every vector of a training object where it was."""
    other = write_data(tmp_path / "other", test_seed=7, test_text="purple thing")
    first, second = run(values(), data, tmp_path, "a"), run(values(), other, tmp_path, "b")
    assert first.reopen("words") == second.reopen("words")
    assert {"secret", "purple", "green"}.isdisjoint(first.reopen("words")["weights"])
    for name in ("shape", "look", "words"):
        arrays = [(s.text(name) if name == "words" else s.images(name)).value[:] for s in (first, second)]
        np.testing.assert_array_equal(arrays[0][:TRAIN], arrays[1][:TRAIN])
        assert not np.array_equal(arrays[0][TRAIN:], arrays[1][TRAIN:], equal_nan=True)


def test_keys_change_with_everything_that_decides_the_numbers(data: Path, tmp_path: Path) -> None:
    def keys(name: str, params: dict[str, Any], source: Path = data) -> dict[str, str]:
        return {teacher.name: teacher.key for teacher in run(params, source, tmp_path, name).info.teachers}

    base = keys("a", values())
    assert keys("b", values(batch_size=2)) == base
    whitened = [OFFLINE[0] | {"whitening": 0.7}, OFFLINE[1]]
    changed = keys("c", values(images=whitened, text=WORDS | {"class_names": "raw"}))
    assert {name for name in base if base[name] != changed[name]} == {"shape", "words"}
    other = keys("d", values(), write_data(tmp_path / "other", test_seed=7))
    assert {name for name in base if base[name] != other[name]} == {"shape", "look"}


def _stopped(params: dict[str, Any], data: Path, root: Path) -> None:
    os.chdir(root)
    embed_views.BLOCK = 2
    offline_image.CELLS = (32,)
    real, calls = Descriptor.encode_image, []

    def fail_later(self: Descriptor, views: np.ndarray) -> np.ndarray:
        calls.append(len(views))
        if len(calls) > 4:  # two blocks through two teachers
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, views)

    Descriptor.encode_image = fail_later  # type: ignore[method-assign, assignment]
    run(params, data, root)


def test_a_killed_run_goes_on_after_the_last_finished_block(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(values(), data, tmp_path / "apart", "whole")
    child = multiprocessing.get_context("spawn").Process(target=_stopped, args=(values(), data, tmp_path))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "features/f").exists()
    seen: list[int] = []
    real = Descriptor.encode_image

    def counted(self: Descriptor, views: np.ndarray) -> np.ndarray:
        seen.append(len(views))
        return real(self, views)

    monkeypatch.setattr(Descriptor, "encode_image", counted)
    monkeypatch.setattr(embed_views, "BLOCK", 2)
    resumed = run(values(), data, tmp_path)
    assert sum(seen) == 2 * (3 * V)  # two teachers, three of seven objects; the second block was objects 2 and 4
    assert resumed.info == whole.info
    for name in ("shape", "look"):
        np.testing.assert_array_equal(resumed.images(name).value[:], whole.images(name).value[:])


def test_views_that_another_entry_has_looked_at_are_not_looked_at_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same views, other captions: the vectors are copied, bit by bit those that are made anew; damage is no help."""
    together, one_caption = tmp_path / "together", WORDS | {"num_captions": 1}
    first = run(values(), data, together, "first")
    alone = run(values(text=one_caption), data, tmp_path / "alone", "second")
    looked: list[int] = []
    encode = Descriptor.encode_image

    def count(self: Descriptor, images: np.ndarray) -> np.ndarray:
        looked.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Descriptor, "encode_image", count)
    second = run(values(text=one_caption), data, together, "second")
    assert looked == []
    for name in ("shape", "look"):
        ours, theirs = (store.images(name) for store in (second, alone))
        assert np.array_equal(ours.value[:], theirs.value[:], equal_nan=True)
        assert np.array_equal(ours.present, theirs.present)
        assert np.array_equal(second.norms(name), alone.norms(name), equal_nan=True)
    assert second.info == alone.info
    assert (first.text("words").present.shape[1], second.text("words").present.shape[1]) == (2, 1)
    run(values(images=[OFFLINE[0] | {"dim": 12}, OFFLINE[1]]), data, together, "third")
    looked_for_one = sum(looked)
    assert looked_for_one > 0  # another width is another key
    for shard in (together / "features").glob("*/features/*.h5"):
        shard.unlink()
        shard.write_bytes(b"damaged")
    run(values(), data, together, "fourth")
    assert sum(looked) == 3 * looked_for_one


def test_a_model_is_loaded_once_however_many_teachers_use_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointloom import teachers

    loaded = []

    def counted(weights: str, **options: Any) -> Any:
        loaded.append(weights)
        return load_clip(weights, **options)

    monkeypatch.setitem(teachers.IMAGE_TEACHERS, "clip", counted)
    run(values(**networks(data)), data, tmp_path)
    assert len(loaded) == 1


def test_captions_that_are_cut_off_are_counted(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = write_data(tmp_path / "other", test_text=" ".join(["lamp"] * 100))
    with caplog.at_level("WARNING"):
        run(values(text=networks(data)["text"], images=[]), other, tmp_path)
    assert "clip_text: 1 of 6 captions are cut off" in caplog.text
    assert json.loads((tmp_path / "f.json").read_text())["metrics"]["truncated_texts"] == 1


def test_views_alone_are_enough(data: Path, tmp_path: Path) -> None:
    store = run(values(text=None), data, tmp_path)
    assert store.names("text") == []
    assert store.info.category is None
    assert store.texts("u000") == []


@pytest.mark.parametrize("family", ["views", "captions"])
def test_views_and_captions_of_another_store_are_refused(data: Path, tmp_path: Path, family: str) -> None:
    other = write_data(tmp_path / "other")
    file = other / family / f"{family}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"dataset_digest": "0" * 64}))
    with pytest.raises(DataError, match=f"the {family} were .* another prepared store"):
        run(values(), other, tmp_path)


def test_parameters_are_checked() -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(ParamsError) as error:
            validate((EmbedParams,), values(**changes), where="params.yaml: embed")
        return str(error.value)

    assert "teachers need different names, look occurs twice" in message(images=[OFFLINE[1], OFFLINE[1]])
    assert "there is no teacher" in message(text=None, images=[])
    misspelt = {**OFFLINE[0], "whitenning": 0.5}
    assert "unknown key; did you mean 'whitening'?" in message(images=[misspelt])
    assert "teacher" in message(images=[{**OFFLINE[0], "teacher": "sam"}])


def names(parameters: Sequence[Any]) -> set[str]:
    return {parameter.name for parameter in parameters}


def test_help_lists_the_parameters_of_every_teacher() -> None:
    from pointloom.stages.signature import describe_params

    found = names(describe_params(EmbedParams))
    assert {"text.dim", "text.weights", "images.whitening", "images.source", "images.quick_gelu"} <= found
