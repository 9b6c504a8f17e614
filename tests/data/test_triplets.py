"""Batches for alignment: repeatable, one view for all teachers, nothing of a missing modality."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data import triplets
from pointloom.data.features import FeatureStore
from pointloom.data.mentions import class_words, draw_classes, mentioning
from pointloom.data.objects import ObjectLoader, Sampling
from pointloom.data.records import ObjectPoints, ObjectRecord
from pointloom.data.shards import ObjectStore, write_store
from pointloom.data.triplets import TeacherVectors, TripletLoader, choose_teachers, described
from pointloom.errors import ParamsError
from tests.data.teacher_files import CAPTIONS, IMAGES, VIEWS, write_teachers

SAMPLING = Sampling(num_points=16, pool=32, scale=(0.8, 1.2), shift=0.1, rotate_degrees=0.0)
CLASSES = ("chair", "lamp", "table")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    rng = np.random.default_rng(0)
    objects = []
    for number in range(12):
        record = ObjectRecord(
            uid=f"o{number:02d}", path=f"{number}", name=f"{number}", category=CLASSES[number % 3], group=f"{number}",
            split="train", up_axis="z", transform=tuple(np.eye(4).ravel()), sha256=f"{number}", num_faces=0,
        )  # fmt: skip
        points = rng.normal(size=(32, 3)).astype(np.float32)
        objects.append((record, ObjectPoints(points, points, np.zeros((32, 3), np.uint8))))
    write_store(tmp_path / "objects", objects, num_points=32, source="folder", settings={})
    return ObjectStore(tmp_path / "objects")


def make_loader(store: ObjectStore, features: FeatureStore, *, top: bool = False, batch_size: int = 4) -> TripletLoader:
    text, images = choose_teachers(features, text=None, images=None)
    rows = np.arange(len(store))
    vectors = TeacherVectors(features, rows, text=text.name, images=images, usable=None, top_caption=top)
    return TripletLoader(ObjectLoader(store, rows, sampling=SAMPLING, batch_size=batch_size, seed=3), vectors)


def features_of(store: ObjectStore, folder: Path, **more: object) -> FeatureStore:
    return write_teachers(folder, store.uids.tolist(), store.categories.tolist(), classes=CLASSES, **more)  # type: ignore[arg-type]


def test_batches_are_a_function_of_seed_epoch_and_step(store: ObjectStore, tmp_path: Path) -> None:
    loader = make_loader(store, features_of(store, tmp_path / "f"))
    whole = list(loader.batches(2))
    (last,) = loader.batches(2, first_step=2)
    assert torch.equal(whole[2].points.coord, last.points.coord)
    assert torch.equal(whole[2].text, last.text)
    assert torch.equal(whole[2].text_id, last.text_id)
    assert all(torch.equal(whole[2].images[name], last.images[name]) for name in last.images)
    assert not all(torch.equal(a.text, b.text) for a, b in zip(whole, loader.batches(3), strict=True))


@pytest.mark.parametrize("cache", [True, False])
def test_vectors_belong_to_the_object_and_one_view_serves_all_teachers(
    store: ObjectStore, tmp_path: Path, cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cache:
        monkeypatch.setattr(triplets, "CACHE_BYTES", 0)
    features = features_of(store, tmp_path / "f")
    stored = {name: features.images(name).value[:].astype(np.float32) for name in IMAGES}
    captions = features.text("words").value[:].astype(np.float32)
    for batch in make_loader(store, features).batches(0):
        for i, row in enumerate(batch.points.row.tolist()):
            closest = np.nanargmax(captions[row] @ batch.text[i].numpy())
            assert captions[row, closest] @ batch.text[i].numpy() == pytest.approx(1, abs=1e-3)
            assert features.text("words").text_id[row, closest] == batch.text_id[i]
            sight = np.stack([stored["sight_rgb"][row], stored["sight_depth"][row]]) @ batch.images["sight"][i].numpy()
            view = int(np.nanargmax(sight)) % VIEWS
            assert np.nanmax(sight) == pytest.approx(1, abs=1e-3)
            assert batch.has_image["sight"][i]
            assert batch.has_image["look"][i] == (view != 0)
            if view != 0:
                assert stored["look"][row, view] @ batch.images["look"][i].numpy() == pytest.approx(1, abs=1e-3)


def test_views_kinds_of_pictures_and_captions_are_drawn_evenly(store: ObjectStore, tmp_path: Path) -> None:
    features = features_of(store, tmp_path / "f")
    loader = make_loader(store, features, batch_size=12)
    stored = np.stack([features.images(n).value[:].astype(np.float32) for n in ("sight_rgb", "sight_depth")], 1)
    drawn, captions = np.zeros((2, VIEWS)), np.zeros(CAPTIONS)
    for epoch in range(40):
        (batch,) = loader.batches(epoch)
        rows = batch.points.row.numpy()
        found = np.einsum("rsvd,rd->rsv", stored[rows], batch.images["sight"].numpy()).reshape(len(rows), -1).argmax(1)
        drawn += np.bincount(found, minlength=2 * VIEWS).reshape(2, VIEWS)
        captions += np.bincount(batch.text_id.numpy() // 1000, minlength=CAPTIONS)
    assert drawn.sum() == captions.sum() == 480
    assert (drawn > 30).all()  # 60 expected each
    assert (captions > 120).all()  # 160 expected each


def test_best_caption_is_the_first_usable_one(store: ObjectStore, tmp_path: Path) -> None:
    features = features_of(store, tmp_path / "f", without_text=[3])
    for batch in make_loader(store, features, top=True).batches(0):
        for row, number, present in zip(batch.points.row.tolist(), batch.text_id, batch.has_text, strict=True):
            assert int(number) == (-1 if row == 3 else row % 3)
            assert bool(present) == (row != 3)
    rows = np.arange(12)
    usable = np.ones((12, CAPTIONS), dtype=bool)
    usable[:, 0] = False
    vectors = TeacherVectors(features, rows, text="words", images=[], usable=usable, top_caption=True)
    assert vectors.draw_caption(rows, np.random.default_rng(0)).tolist() == [0 if r == 3 else 1 for r in rows]


def test_missing_modality_is_masked_and_zero(store: ObjectStore, tmp_path: Path) -> None:
    features = features_of(store, tmp_path / "f", without_text=range(6), without_views=range(5, 12))
    for batch in make_loader(store, features).batches(0):
        rows = batch.points.row
        assert torch.equal(batch.has_text, rows >= 6)
        assert torch.equal(batch.has_image["sight"], rows < 5)
        assert not batch.text[~batch.has_text].any()
        assert not batch.images["sight"][~batch.has_image["sight"]].any()
        assert torch.isfinite(batch.images["look"]).all()
    text, images = choose_teachers(features, text=None, images=None)
    has_text = features.text(text.name).present.any(axis=1)
    found = described(features, np.arange(12), images=images, has_text=has_text)
    assert found.tolist() == [number != 5 for number in range(12)]


def test_names_of_classes_take_the_place_of_captions(store: ObjectStore, tmp_path: Path) -> None:
    features = features_of(store, tmp_path / "f", without_text=[0])
    text, images = choose_teachers(features, text=None, images=None)
    rows, class_of = np.arange(12), np.where(np.arange(12) == 5, -1, store.labels)
    vectors = TeacherVectors(
        features, rows, text=text.name, images=images, usable=None, top_caption=True, class_of=class_of
    )
    objects = ObjectLoader(store, rows, sampling=SAMPLING, batch_size=4, seed=3)
    names = torch.from_numpy(features.class_text(text.name))
    for batch in TripletLoader(objects, vectors).batches(0):
        for row, name, number, present in zip(
            batch.points.row.tolist(), batch.text, batch.text_id, batch.has_text, strict=True
        ):
            assert bool(present) == (row != 5)
            assert int(number) == (-1 if row == 5 else row % 3)
            assert torch.equal(name, names[row % 3] if present else torch.zeros_like(name))
        assert batch.has_image["sight"].all()


def test_pictures_of_one_model_form_one_teacher(store: ObjectStore, tmp_path: Path) -> None:
    features = features_of(store, tmp_path / "f")
    text, images = choose_teachers(features, text=None, images=None)
    assert text.name == "words"
    assert [(each.name, each.entries) for each in images] == [
        ("look", ("look",)), ("sight", ("sight_rgb", "sight_depth"))
    ]  # fmt: skip
    _, images = choose_teachers(features, text="words", images=["sight_depth"])
    assert [(each.name, each.entries) for each in images] == [("sight", ("sight_depth",))]
    with pytest.raises(ParamsError, match="no image teacher 'dino'; it has look, sight_rgb, sight_depth"):
        choose_teachers(features, text=None, images=["dino"])


def test_captions_that_name_a_class_are_found_in_singular_and_plural() -> None:
    words = class_words(["chest_of_drawers", "Shelf", "bus", "berry"])
    texts = [
        ["a wooden chest", "a drawer, open", "two shelves!", "of the best"],
        ["Buses", "berries", "a chessboard", "the shelf-like thing"],
        [],
    ]
    assert mentioning(texts, words, num=4).tolist() == [
        [True, True, True, False], [True, True, False, True], [False] * 4
    ]  # fmt: skip
    assert not mentioning(texts, class_words([]), num=4).any()


def test_drawn_classes_share_no_word_with_another_where_possible_and_are_at_most_half() -> None:
    names = ["bed", "coffee_table", "lamp", "office_chair", "chair", "table", "shelf"]
    for seed in range(5):
        drawn = draw_classes(names, 3, seed=seed)
        assert drawn == draw_classes(names, 3, seed=seed)
        assert set(drawn) == {"bed", "lamp", "shelf"}
    assert len({tuple(draw_classes(names, 2, seed=seed)) for seed in range(9)}) > 1
    assert len(draw_classes(names, 8, seed=0)) == 3
    assert draw_classes([], 8, seed=0) == []
