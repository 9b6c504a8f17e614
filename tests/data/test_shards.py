import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pointloom.data import shards
from pointloom.data.records import NO_PART, Failure, ObjectPoints, ObjectRecord
from pointloom.data.shards import ObjectStore, write_store
from pointloom.errors import DataError

IDENTITY = tuple(np.eye(4).ravel().tolist())


def make_record(i: int, *, category: str | None, split: str = "train") -> ObjectRecord:
    return ObjectRecord(
        uid=f"object-{i:04d}",
        path=f"{category}/{i}.off",
        name=str(i),
        category=category,
        group=f"group-{i // 2}",
        split=split,
        up_axis="z",
        transform=IDENTITY,
        sha256=f"{i:064x}",
        num_faces=12,
        status="ok" if i % 3 else "texture_missing",
        attributes=("red",),
        captions=("a red thing", "another one"),
    )


def make_points(i: int, num_points: int, *, segment: bool = False) -> ObjectPoints:
    random = np.random.default_rng(i)
    normal = random.normal(size=(num_points, 3))
    return ObjectPoints(
        coord=random.uniform(-1, 1, size=(num_points, 3)).astype(np.float32),
        normal=(normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        color=random.integers(0, 256, size=(num_points, 3), dtype=np.uint8),
        segment=random.integers(0, 4, size=num_points, dtype=np.uint8) if segment else None,
    )


def make_objects(num: int, num_points: int) -> Iterator[tuple[ObjectRecord, ObjectPoints]]:
    for i in range(num):
        split = "test" if i % 4 == 0 else "train"
        yield make_record(i, category=["chair", "bed", None][i % 3], split=split), make_points(i, num_points)


def write(target: Path, objects: Iterator[tuple[ObjectRecord, ObjectPoints]], num_points: int = 16) -> None:
    failures = [Failure("bad.off", "empty", "no faces")]
    settings = {"num_points": num_points}
    write_store(target, objects, num_points=num_points, source="folder", settings=settings, failures=failures)


def test_store_returns_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "objects", make_objects(130, 16))
    store = ObjectStore(tmp_path / "objects")
    assert len(store) == 130
    assert store.info.classes == ("bed", "chair")
    assert store.info.counts["test"] == 33
    assert store.info.counts["texture_missing"] == 44
    assert [store.labels[i] for i in range(3)] == [1, 0, -1]
    assert store.captions[5] == ["a red thing", "another one"]
    assert store.failures() == [{"path": "bad.off", "reason": "empty", "detail": "no faces"}]
    rows = np.array([129, 3, 64, 3, 0])
    expected = [make_points(int(i), 16) for i in rows]
    np.testing.assert_array_equal(store.coords(rows), np.stack([p.coord for p in expected]))
    np.testing.assert_array_equal(store.coords(rows, 5), np.stack([p.coord[:5] for p in expected]))
    np.testing.assert_array_equal(store.colors(rows), np.stack([p.color for p in expected]))
    np.testing.assert_allclose(store.normals(rows), np.stack([p.normal for p in expected]), atol=1e-3)


def test_objects_are_spread_over_shards_of_limited_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SIZE", 64)
    write(tmp_path / "objects", make_objects(150, 4), num_points=4)
    assert [p.name for p in sorted((tmp_path / "objects/points").iterdir())] == ["00000.h5", "00001.h5", "00002.h5"]
    store = ObjectStore(tmp_path / "objects")
    rows = np.arange(149, -1, -7)
    np.testing.assert_array_equal(store.coords(rows), np.stack([make_points(int(i), 4).coord for i in rows]))


def test_a_read_of_2048_points_is_one_uncompressed_chunk(tmp_path: Path) -> None:
    import h5py

    write(tmp_path / "objects", make_objects(2, 4096), num_points=4096)
    with h5py.File(tmp_path / "objects/points/00000.h5") as file:
        assert file["coord"].chunks == (1, 2048, 3)
        assert file["coord"].compression is None
        assert file["uid"].asstr()[:].tolist() == ["object-0000", "object-0001"]


def test_segments_are_kept_where_known(tmp_path: Path) -> None:
    objects = [
        (make_record(0, category="chair"), make_points(0, 8, segment=True)),
        (make_record(1, category=None), make_points(1, 8)),
    ]
    parts = {"chair": ["seat", "back", "leg", "arm"]}
    write_store(tmp_path / "objects", objects, num_points=8, source="synthetic", settings={}, parts=parts)
    store = ObjectStore(tmp_path / "objects")
    assert store.info.parts == parts
    segments = store.segments(np.array([0, 1]))
    np.testing.assert_array_equal(segments[0], objects[0][1].segment)
    assert (segments[1] == NO_PART).all()


def test_objects_for_pretraining_never_have_a_label(tmp_path: Path) -> None:
    objects = [
        (make_record(0, category="chair"), make_points(0, 8)),
        (make_record(1, category="ufo", split="pretrain"), make_points(1, 8)),
    ]
    write_store(tmp_path / "objects", objects, num_points=8, source="synthetic", settings={})
    store = ObjectStore(tmp_path / "objects")
    assert store.info.classes == ("chair",)
    assert store.labels.tolist() == [0, -1]
    assert store.rows("pretrain").tolist() == [1]


def test_digest_depends_on_labels_splits_content_and_settings_only(tmp_path: Path) -> None:
    def digest(record: ObjectRecord, settings: dict[str, int]) -> str:
        objects = [(record, make_points(0, 8))]
        return write_store(tmp_path / "objects", objects, num_points=8, source="folder", settings=settings).digest

    base = make_record(1, category="chair")
    reference = digest(base, {"seed": 0})
    assert digest(make_record(1, category="chair"), {"seed": 0}) == reference
    assert digest(make_record(1, category="bed"), {"seed": 0}) != reference
    assert digest(make_record(1, category="chair", split="test"), {"seed": 0}) != reference
    assert digest(make_record(2, category="chair"), {"seed": 0}) != reference
    assert digest(base, {"seed": 1}) != reference


def test_a_failed_write_leaves_the_old_store_in_place(tmp_path: Path) -> None:
    write(tmp_path / "objects", make_objects(3, 8), num_points=8)
    before = ObjectStore(tmp_path / "objects").info.digest

    def interrupted() -> Iterator[tuple[ObjectRecord, ObjectPoints]]:
        yield from make_objects(100, 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "objects", interrupted(), num_points=8)
    assert ObjectStore(tmp_path / "objects").info.digest == before
    write(tmp_path / "objects", make_objects(5, 8), num_points=8)
    assert len(ObjectStore(tmp_path / "objects")) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["objects"]


def test_an_opened_store_can_be_pickled(tmp_path: Path) -> None:
    write(tmp_path / "objects", make_objects(3, 8), num_points=8)
    store = ObjectStore(tmp_path / "objects")
    expected = store.coords(np.arange(3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).coords(np.arange(3)), expected)


def test_errors_name_the_place_and_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no prepared store here .*run `pointloom prepare` first"):
        ObjectStore(tmp_path / "nowhere")
    write(tmp_path / "objects", make_objects(3, 8), num_points=8)
    store = ObjectStore(tmp_path / "objects")
    with pytest.raises(DataError, match="asked for 9 points per object, the store has 8"):
        store.coords(np.arange(3), 9)
    with pytest.raises(DataError, match="no part labels"):
        store.segments(np.arange(3))
    with pytest.raises(ValueError, match="unknown split 'val'; known: train, test, pretrain"):
        store.rows("val")
    description = tmp_path / "objects/dataset.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DataError, match="format 99, expected 1"):
        ObjectStore(tmp_path / "objects")
    description.write_text(json.dumps(content | {"kind": "scenes", "box_classes": []}))
    with pytest.raises(DataError, match="kind 'scenes', expected 'objects'; prepare with a source of objects"):
        ObjectStore(tmp_path / "objects")
    description.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ObjectStore(tmp_path / "objects")
    description.write_text(json.dumps(content))
    (tmp_path / "objects/points/00000.h5").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"00000\.h5: cannot be read"):
        ObjectStore(tmp_path / "objects").coords(np.arange(3))
    (tmp_path / "objects/index.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        ObjectStore(tmp_path / "objects")
