from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pointloom.captioners.blip2 import Blip2Captioner
from pointloom.captioners.blip2_model import Blip2Model
from pointloom.data.mentions import class_words, mentioning
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.teachers.clip import Clip, load_clip
from tests.captioners.stores import Thing, write_random_views, write_things
from tests.teachers.tiny import write_clip_folder

NUM_VIEWS = 3


class Writer(Blip2Model):
    """Stands for the language model: sentences that name the picture they were asked about."""

    def __init__(
        self, *, sentences: Sequence[str] = ("a chair in {}", "A CHAIR seen as {}", "bad bad bad bad bad")
    ) -> None:
        self.name, self.weights_sha256 = "writer", "0" * 64
        self.sentences = sentences
        self.calls: list[tuple[int, int]] = []

    def sample(self, views: np.ndarray, *, prompt: str, samples: int, seed: int, **options: Any) -> list[list[str]]:
        self.calls.append((len(views), seed))
        return [[text.format(int(view.sum())) for text in self.sentences[:samples]] for view in views]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("models") / "clip"
    write_clip_folder(folder)
    return load_clip(str(folder), device=torch.device("cpu"))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return write_things(tmp_path / "store", [Thing(), Thing(category="lamp"), Thing(), Thing()])


def captioner(store: ObjectStore, views: ViewStore, clip: Clip, writer: Writer, **changes: Any) -> Blip2Captioner:
    options: dict[str, Any] = {
        "prompt": "", "samples": 3, "num_views": NUM_VIEWS, "top_p": 0.9, "max_new_tokens": 5, "batch_size": 4,
        "seed": 0, "category": True,
    }  # fmt: skip
    return Blip2Captioner(store, views, writer, clip, **(options | changes))  # type: ignore[arg-type]


def test_scores_are_cosines_of_each_caption_with_its_own_view_best_first(
    store: ObjectStore, clip: Clip, tmp_path: Path
) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    found = captioner(store, views, clip, Writer())(np.arange(len(store)))
    for row, one in enumerate(found):
        assert one.problem is None
        assert len(one.captions) == NUM_VIEWS * 3
        pictures = views.rgb(row)
        for caption in one.captions:
            assert caption.view is not None
            text, image = clip.encode_text([caption.text])[0], clip.encode_image(pictures[caption.view][None])[0]
            expected = text @ image / np.linalg.norm(text) / np.linalg.norm(image)
            assert caption.score == pytest.approx(float(expected), abs=1e-5)
            assert "bad" in caption.text or caption.text.endswith(str(int(pictures[caption.view].sum())))
        scores = [caption.score for caption in one.captions]
        assert scores == sorted(scores, reverse=True)


def test_degenerate_sentences_are_kept_but_not_ok(store: ObjectStore, clip: Clip, tmp_path: Path) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    for one in captioner(store, views, clip, Writer())(np.arange(len(store))):
        assert sum(caption.ok for caption in one.captions) == NUM_VIEWS * 2
        assert all(caption.ok != ("bad" in caption.text) for caption in one.captions)


def test_only_valid_views_are_described_and_the_rest_is_explained(
    store: ObjectStore, clip: Clip, tmp_path: Path
) -> None:
    valid = {0: [False, True, True], 1: [False] * 3, 2: []}
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS, valid=valid)
    found = captioner(store, views, clip, Writer())(np.arange(len(store)))
    assert {caption.view for caption in found[0].captions} == {1, 2}
    assert [one.problem and one.problem[0] for one in found] == [None, "no_view", "no_view", None]
    assert found[1].captions == found[2].captions == []
    assert {caption.view for caption in found[3].captions} == {0, 1, 2}


def test_a_damaged_view_costs_one_object_only(store: ObjectStore, clip: Clip, tmp_path: Path) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    with h5py.File(tmp_path / "views/views/00000.h5", "r+") as file:
        start = int(file["rgb_end"][0, -1])
        file["rgb"][start : start + 200] = 0
    found = captioner(store, ViewStore(tmp_path / "views"), clip, Writer())(np.arange(len(store)))
    assert [one.problem and one.problem[0] for one in found] == [None, "damaged_view", None, None]
    assert str(views.uids[1]) in str(found[1].problem)


def test_objects_whose_sentences_all_fail_say_so(store: ObjectStore, clip: Clip, tmp_path: Path) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    found = captioner(store, views, clip, Writer(sentences=["a photo of"]), prompt="a photo of", samples=1)(
        np.arange(1)
    )
    assert found[0].problem == ("no_caption", "all 3 sentences repeat the prompt or themselves")
    assert len(found[0].captions) == 3


def test_views_share_batches_and_a_block_does_not_depend_on_other_blocks(
    store: ObjectStore, clip: Clip, tmp_path: Path
) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    whole, part = Writer(), Writer()
    captioner(store, views, clip, whole)(np.arange(4))
    assert [size for size, _ in whole.calls] == [4, 4, 4]
    assert len({seed for _, seed in whole.calls}) == 3
    captioner(store, views, clip, part)(np.arange(2))
    captioner(store, views, clip, part)(np.arange(2, 4))
    again = Writer()
    captioner(store, views, clip, again)(np.arange(2, 4))
    assert part.calls[2:] == again.calls
    other = Writer()
    captioner(store, views, clip, other, seed=1)(np.arange(4))
    assert not {seed for _, seed in other.calls} & {seed for _, seed in whole.calls}


def test_fewer_views_are_spread_over_the_valid_ones(store: ObjectStore, clip: Clip, tmp_path: Path) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    found = captioner(store, views, clip, Writer(), num_views=2)(np.arange(1))
    assert {caption.view for caption in found[0].captions} == {0, 2}


def test_without_category_no_caption_has_a_word_of_any_class(store: ObjectStore, clip: Clip, tmp_path: Path) -> None:
    views = write_random_views(tmp_path / "views", store, num_views=NUM_VIEWS)
    writer = Writer(sentences=["two Chairs and a lamp {}", "an armchair {}", "lamps, chairs {}"])
    words = class_words(store.info.classes)
    for category in (True, False):
        found = captioner(store, views, clip, writer, category=category)(np.arange(4))
        texts = [[caption.text for caption in one.captions] for one in found]
        assert mentioning(texts, words, num=9).any() == category
        assert "armchair" not in str(texts) or category
