from pathlib import Path

import numpy as np
import pytest

from pointloom.data.captions import ROW_GROUP, Caption, CaptionsInfo, CaptionStore, write_captions
from pointloom.data.records import Failure
from pointloom.errors import DataError

INFO = CaptionsInfo(
    captioner="blip2",
    model="tiny",
    model_digest="ab" * 32,
    prompt="a photo of",
    seed=3,
    category=True,
    ranker="clip",
    settings={"samples": 2},
    dataset_digest="cd" * 32,
    views_digest="ef" * 32,
)
CHAIR = [Caption("a chair a chair a chair", 0.3, 2, False), Caption("a red chair – “old”", 0.25, 0, True)]
TABLE = [Caption("a round table", None, None, True)]


def write(folder: Path, *objects: tuple[str, list[Caption]], failures: tuple[Failure, ...] = ()) -> CaptionsInfo:
    folder.mkdir(parents=True)
    return write_captions(folder, objects, info=INFO, failures=failures)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    failure = Failure("a/b.glb", "no_view", "nothing to describe")
    info = write(tmp_path / "c", ("chair", CHAIR), ("table", TABLE), ("cloud", []), failures=(failure,))
    store = CaptionStore(tmp_path / "c", dataset_digest=INFO.dataset_digest)
    assert store.info == info
    assert store.uids == ["chair", "table", "cloud"]
    assert store.of("table") == TABLE
    assert store.of("chair") == [
        Caption(c.text, float(np.float32(c.score)) if c.score else None, c.view, c.ok) for c in CHAIR
    ]
    assert store.failures() == [{"path": "a/b.glb", "reason": "no_view", "detail": "nothing to describe"}]
    assert [uid for uid, _ in store] == store.uids


def test_top_is_the_best_caption_that_is_ok(tmp_path: Path) -> None:
    write(tmp_path / "c", ("chair", CHAIR), ("bad", CHAIR[:1]), ("none", []))
    store = CaptionStore(tmp_path / "c")
    assert store.top("chair") == "a red chair – “old”"
    assert store.top("bad") is None
    assert store.top("none") is None
    assert store.top("never heard of") is None


def test_more_objects_than_a_row_group_keep_their_captions(tmp_path: Path) -> None:
    num = ROW_GROUP + 3
    write(tmp_path / "c", *((f"u{i}", [Caption(f"object {i}", None, None, True)]) for i in range(num)))
    store = CaptionStore(tmp_path / "c")
    assert len(store) == num
    assert [store.top(f"u{i}") for i in (0, ROW_GROUP - 1, ROW_GROUP, num - 1)] == [
        f"object {i}" for i in (0, ROW_GROUP - 1, ROW_GROUP, num - 1)
    ]


def test_digest_follows_texts_scores_and_order_but_not_the_folder(tmp_path: Path) -> None:
    first = write(tmp_path / "a", ("x", CHAIR), ("y", TABLE))
    assert write(tmp_path / "b", ("x", CHAIR), ("y", TABLE)).digest == first.digest
    changed = [Caption(c.text, c.score, c.view, True) for c in CHAIR]
    others = [
        write(tmp_path / "c", ("x", changed), ("y", TABLE)),
        write(tmp_path / "d", ("x", CHAIR[::-1]), ("y", TABLE)),
        write(tmp_path / "e", ("y", CHAIR), ("x", TABLE)),
    ]
    assert len({first.digest, *(info.digest for info in others)}) == 4


def test_captions_of_another_store_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "c", ("x", CHAIR))
    with pytest.raises(DataError, match=r"another prepared store .*run `pointloom caption` again"):
        CaptionStore(tmp_path / "c", dataset_digest="0" * 64)


def test_missing_and_damaged_captions_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions.json is missing.*run `pointloom caption` first"):
        CaptionStore(tmp_path)
    write(tmp_path / "c", ("x", CHAIR))
    (tmp_path / "c/captions.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"captions.parquet: cannot be read"):
        CaptionStore(tmp_path / "c")
    for content, message in (('{"format": 9, "kind": "captions"}', "format 9, expected 1"), ("[1]", "damaged")):
        (tmp_path / "c/captions.json").write_text(content)
        with pytest.raises(DataError, match=message):
            CaptionStore(tmp_path / "c")
