from pathlib import Path

import h5py
import numpy as np
import pytest

from pointloom.data import feature_files, features
from pointloom.data.feature_files import NO_TEXT, FeatureInfo, FeaturesInfo, ObjectFeatures, write_features
from pointloom.data.features import FeatureStore
from pointloom.errors import DataError

NUM, K, V = 7, 2, 3
TEACHERS = (
    FeatureInfo("words", "text", "captions", "bag of words", 5, "a" * 64),
    FeatureInfo("shape", "image", "depth", "descriptors", 4, "b" * 64),
)
INFO = FeaturesInfo(TEACHERS, ("lamp", "chair"), "d" * 64, "v" * 64, "c" * 64, True, K, V)


def raw() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of different lengths; object 3 has one caption, object 4 none, view 1 of object 2 shows nothing."""
    random = np.random.default_rng(0)
    text = random.normal(size=(NUM, K, 5)).astype(np.float32) * 10
    image = random.normal(size=(NUM, V, 4)).astype(np.float32)
    text[3, 1], text[4], image[2, 1] = np.nan, np.nan, np.nan
    image[5, 0] = 0  # a description of nothing is no direction
    return text, image


def objects() -> list[ObjectFeatures]:
    text, image = raw()
    texts = [("a lamp", "lamp"), ("a lamp", "chair"), ("b", "c"), ("d",), (), ("e", "f"), ("g", "h")]
    ids = [(0, 1), (0, 2), (3, 4), (5,), (), (6, 7), (8, 9)]
    return [ObjectFeatures(f"o{i}", texts[i], ids[i], {"words": text[i], "shape": image[i]}) for i in range(NUM)]


def write(folder: Path) -> Path:
    folder.mkdir()
    class_text = {"words": np.array([[3, 4, 0, 0, 0], [0, 0, 0, 0, 2]], dtype=np.float32)}
    write_features(folder, objects(), info=INFO, class_text=class_text, reopen={"words": {"dim": 5}})
    return folder


@pytest.fixture(params=[4096, 3])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features in one shard, and in three."""
    for module in (feature_files, features):
        monkeypatch.setattr(module, "SHARD_SIZE", request.param)
    monkeypatch.setattr(feature_files, "_WRITE_BLOCK", 1 if request.param == 3 else 256)
    return write(tmp_path / "features")


def unit(value: np.ndarray) -> np.ndarray:
    return value / np.linalg.norm(value, axis=-1, keepdims=True)


def test_vectors_come_back_with_length_one_and_half_precision(folder: Path) -> None:
    store = FeatureStore(folder)
    text, image = raw()
    rows, which = np.array([6, 0, 2, 0]), np.array([1, 0, 2, 1])
    value, present = store.read_images("shape", rows, which)
    assert present.all()
    assert value.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(value, unit(image[rows, which]), atol=2**-11)
    every = store.text("words").value[:]
    assert every.dtype == np.float16
    np.testing.assert_allclose(every[[0, 1]], unit(text[[0, 1]]), atol=2**-11)
    np.testing.assert_array_equal(store.text("words").value[np.array([1, 6, 0])], every[[1, 6, 0]])


def test_cosines_survive_half_precision(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    value = random.normal(size=(50, 1, 1280)).astype(np.float32)
    teacher = FeatureInfo("wide", "image", "rgb", "m", 1280, "k")
    info = FeaturesInfo((teacher,), (), "d", "v", "c", None, 0, 1)
    (tmp_path / "f").mkdir()
    write_features(
        tmp_path / "f",
        [ObjectFeatures(str(i), (), (), {"wide": v}) for i, v in enumerate(value)],
        info=info,
        class_text={},
        reopen={},
    )
    found, _ = FeatureStore(tmp_path / "f").read_images("wide", np.arange(50), np.zeros(50, dtype=np.int64))
    true = unit(value[:, 0])
    assert np.abs(found @ found.T - true @ true.T).max() < 4e-5


def test_what_is_missing_is_masked_and_never_a_zero_vector(folder: Path) -> None:
    store = FeatureStore(folder)
    words, shape = store.text("words"), store.images("shape")
    expected = np.ones((NUM, K), dtype=bool)
    expected[3, 1], expected[4] = False, False
    np.testing.assert_array_equal(words.present, expected)
    assert np.isnan(words.value[:][~expected]).all()
    assert np.argwhere(~shape.present).tolist() == [[2, 1], [5, 0]]
    assert not (np.abs(shape.value[:]).sum(axis=-1) == 0).any()
    value, present = store.read_text("words", np.array([4, 3, 3]), np.array([0, 0, 1]))
    assert present.tolist() == [False, True, False]
    assert np.isfinite(value).all()
    assert np.isnan(store.norms("shape")[2, 1])


def test_the_lengths_are_kept(folder: Path) -> None:
    text, _ = raw()
    np.testing.assert_allclose(FeatureStore(folder).norms("words")[0], np.linalg.norm(text[0], axis=-1), rtol=1e-6)


def test_equal_texts_have_equal_numbers(folder: Path) -> None:
    store = FeatureStore(folder)
    ids = store.text("words").text_id
    assert ids[0, 0] == ids[1, 0]
    assert ids[3].tolist() == [5, NO_TEXT]
    assert store.texts("o1") == ["a lamp", "chair"]
    assert store.texts("o4") == []


def test_class_names_and_the_way_back_to_the_teacher(folder: Path) -> None:
    store = FeatureStore(folder)
    np.testing.assert_allclose(store.class_text("words"), [[0.6, 0.8, 0, 0, 0], [0, 0, 0, 0, 1]], atol=1e-6)
    assert store.info.classes == ("lamp", "chair")
    assert store.reopen("words") == {"dim": 5}
    assert (store.names("text"), store.names("image")) == (["words"], ["shape"])


def test_features_of_another_store_are_refused(folder: Path) -> None:
    FeatureStore(folder, dataset_digest="d" * 64)
    with pytest.raises(DataError, match=r"another prepared store \(d{12}, expected e{12}\); run `pointloom embed`"):
        FeatureStore(folder, dataset_digest="e" * 64)


def test_a_stale_shard_is_an_error_that_names_both_keys(folder: Path) -> None:
    with h5py.File(folder / "features/00000.h5", "a") as file:
        file["shape"].attrs["key"] = "0" * 64
    with pytest.raises(DataError, match=r"stale features 'shape': made with key 0{12}, .* says b{12}"):
        FeatureStore(folder).images("shape")


def test_wrong_questions_are_answered_with_what_there_is(folder: Path) -> None:
    store = FeatureStore(folder)
    with pytest.raises(DataError, match="no features 'dino'; known: words, shape"):
        store.images("dino")
    with pytest.raises(DataError, match="'words' is a teacher for text, not for image"):
        store.images("words")
    with pytest.raises(DataError, match="no features here"):
        FeatureStore(folder / "features")
    (folder / "features.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        FeatureStore(folder)


def test_the_digest_depends_on_keys_objects_and_texts(tmp_path: Path) -> None:
    first = FeatureStore(write(tmp_path / "a")).info.digest
    assert first == FeatureStore(write(tmp_path / "b")).info.digest
    (tmp_path / "c").mkdir()
    other = write_features(tmp_path / "c", objects()[:6], info=INFO, class_text={}, reopen={})
    assert other.digest != first
