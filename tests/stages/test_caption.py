import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from pointloom.captioners.blip2 import Blip2Captioner
from pointloom.captioners.offline import OfflineCaptioner
from pointloom.data.captions import CaptionStore
from pointloom.errors import CheckpointError, DataError
from pointloom.stages.caption import CaptionParams, caption
from tests.captioners.stores import Thing, write_random_views, write_things
from tests.captioners.tiny_blip2 import write_blip2_folder
from tests.teachers.tiny import write_clip_folder

OFFLINE = {"method": "offline", "views": "demo", "category": True, "source": "measured"}
COLORS = ((200, 30, 30), (20, 40, 220), (0, 130, 0))
THINGS = [
    Thing(category="chair" if i % 2 else "lamp", color=COLORS[i % 3], split="test" if i > 4 else "train")
    for i in range(7)
]


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with objects, views and tiny real models."""
    root = tmp_path_factory.mktemp("data")
    store = write_things(root / "objects", THINGS)
    write_random_views(root / "views", store)
    write_blip2_folder(root / "models/blip2")
    write_clip_folder(root / "models/clip")
    return root


def blip2(data: Path, **changes: Any) -> dict[str, Any]:
    ranker = {
        "weights": str(data / "models/clip"), "architecture": None, "quick_gelu": None, "precision": "fp32",
        "batch_size": 8,
    }  # fmt: skip
    return {
        "method": "blip2", "views": "demo", "category": True, "weights": str(data / "models/blip2"),
        "precision": "fp16", "prompt": "a photo of", "samples": 3, "num_views": 2, "top_p": 0.9,
        "max_new_tokens": 6, "batch_size": 4, "seed": 0, "ranker": ranker, "max_failure_ratio": 0.0,
    } | changes  # fmt: skip


def run(values: dict[str, Any], data: Path, root: Path, name: str = "c") -> CaptionStore:
    params = TypeAdapter(CaptionParams).validate_python(values)
    caption(
        params, dataset=data / "objects", views=data / "views", captions=root / "captions" / name,
        metrics=root / f"{name}.json", state=root / "state",
    )  # fmt: skip
    return CaptionStore(root / "captions" / name)


def test_both_captioners_write_the_same_format(data: Path, tmp_path: Path) -> None:
    offline, sampled = run(OFFLINE, data, tmp_path, "offline"), run(blip2(data), data, tmp_path, "blip2")
    for made in (offline, sampled):
        assert made.uids == [f"u{i:03d}" for i in range(len(THINGS))]
        assert all(made.of(uid) and made.top(uid) for uid in made.uids)
        metrics = json.loads((tmp_path / f"{made.path.name}.json").read_text())["metrics"]
        assert metrics["objects"] == 7
        assert metrics["captions"] == sum(len(found) for _, found in made)
        assert metrics["without_caption"] == 0
        assert not list((tmp_path / "state/caption").iterdir())
    names = [sorted(json.loads((store.path / "captions.json").read_text())) for store in (offline, sampled)]
    assert names[0] == names[1]
    assert {caption.score for _, found in offline for caption in found} == {None}
    assert all(caption.score is not None for _, found in sampled for caption in found)
    assert all(len(found) == 2 * 3 for _, found in sampled)
    assert "views" not in offline.info.settings


def test_description_holds_what_is_needed_to_repeat_it(data: Path, tmp_path: Path) -> None:
    info = run(blip2(data), data, tmp_path).info
    assert (info.captioner, info.prompt, info.seed, info.category) == ("blip2", "a photo of", 0, True)
    assert info.model_digest is not None
    assert info.model_digest[:12] in info.model
    assert info.ranker is not None
    assert info.ranker.startswith("clip (")
    assert info.views_digest == json.loads((data / "views/views.json").read_text())["digest"]
    assert info.dataset_digest == json.loads((data / "objects/dataset.json").read_text())["digest"]


def test_a_seed_repeats_captions_and_another_changes_them(data: Path, tmp_path: Path) -> None:
    first, again = run(blip2(data), data, tmp_path, "a"), run(blip2(data), data, tmp_path, "b")
    other = run(blip2(data, seed=1), data, tmp_path, "c")
    assert first.info == again.info
    assert dict(first) == dict(again)
    assert dict(first) != dict(other)
    assert run(OFFLINE, data, tmp_path, "d").info == run(OFFLINE, data, tmp_path, "e").info


def _stopped(values: dict[str, Any], data: Path, root: Path, blocks: int) -> None:
    """Be killed inside the block after ``blocks`` finished ones."""
    os.chdir(root)
    Blip2Captioner.block_size = OfflineCaptioner.block_size = 2
    real, done = Blip2Captioner.__call__, []

    def fail_later(self: Blip2Captioner, rows: np.ndarray) -> Any:
        if len(done) == blocks:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(rows)
        return real(self, rows)

    Blip2Captioner.__call__ = fail_later  # type: ignore[method-assign]
    run(values, data, root)


def test_a_killed_run_goes_on_after_the_last_finished_block(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blip2Captioner, "block_size", 2)
    whole = run(blip2(data), data, tmp_path, "whole")
    child = multiprocessing.get_context("spawn").Process(target=_stopped, args=(blip2(data), data, tmp_path, 2))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "captions/c").exists()
    described: list[int] = []
    real = Blip2Captioner.__call__

    def counted(self: Blip2Captioner, rows: np.ndarray) -> Any:
        described.extend(rows.tolist())
        return real(self, rows)

    monkeypatch.setattr(Blip2Captioner, "__call__", counted)
    resumed = run(blip2(data), data, tmp_path)
    assert described == [4, 5, 6]
    assert resumed.info == whole.info
    assert dict(resumed) == dict(whole)


def test_too_many_objects_without_caption_stop_the_stage(data: Path, tmp_path: Path) -> None:
    from pointloom.data.shards import ObjectStore

    store = ObjectStore(data / "objects")
    root = tmp_path / "part"
    root.mkdir()
    (root / "objects").symlink_to(data / "objects")
    write_random_views(root / "views", store, valid={0: [False, False], 3: []})
    with pytest.raises(DataError, match=r"2 of 7 objects have no caption that is ok, .*lamp/thing_0.glb \(no_view"):
        run(blip2(data), root, tmp_path)
    assert not (tmp_path / "captions/c").exists()
    made = run(blip2(data, max_failure_ratio=0.5), root, tmp_path)
    assert [failure["reason"] for failure in made.failures()] == ["no_view", "no_view"]
    assert (made.of("u000"), made.top("u003")) == ([], None)
    assert len(made) == 7


def test_views_of_another_store_are_refused(data: Path, tmp_path: Path) -> None:
    other = write_things(tmp_path / "objects", THINGS[:3])
    write_random_views(tmp_path / "views", other)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/objects").symlink_to(data / "objects")
    (tmp_path / "mixed/views").symlink_to(tmp_path / "views")
    with pytest.raises(DataError, match="run `pointloom render` again"):
        run(blip2(data), tmp_path / "mixed", tmp_path)


def test_missing_weights_say_which_captioner_or_ranker_needs_them(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="captioner blip2: no weights at"):
        run(blip2(data, weights="nowhere/blip2-flan-t5-xl"), data, tmp_path)
    with pytest.raises(CheckpointError, match=r"no weights at .*nothing"):
        run(blip2(data, ranker={**blip2(data)["ranker"], "weights": "nothing"}), data, tmp_path)


@pytest.mark.parametrize("changes", [{"samples": 0}, {"top_p": 0}, {"beams": 3}, {"source": "measured"}])
def test_parameters_out_of_range_or_of_the_other_method_are_refused(data: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        TypeAdapter(CaptionParams).validate_python(blip2(data, **changes))
