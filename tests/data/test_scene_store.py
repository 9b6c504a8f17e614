"""Scenes come back from disk as they went in; what cannot be used and what is damaged is said clearly."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointloom.data import scene_store
from pointloom.data.quarantine import RejectedError
from pointloom.data.records import Failure
from pointloom.data.scene_checks import boxes_of_instances, check_scene
from pointloom.data.scene_store import SceneStore, SceneStoreInfo, write_scenes
from pointloom.data.scenes import Scene, SceneBoxes, Sentence
from pointloom.errors import DataError


def boxes(*sizes: float) -> SceneBoxes:
    num = len(sizes)
    size = np.repeat(np.array(sizes, np.float32)[:, None], 3, axis=1)
    return SceneBoxes(np.ones((num, 3), np.float32), size, np.full(num, 0.5, np.float32), np.zeros(num, np.int64),
                      np.arange(num))  # fmt: skip


def scene(name: str = "a", num: int = 50, **changes: object) -> Scene:
    rng = np.random.default_rng(num)
    normal = rng.normal(size=(num, 3))
    values: dict[str, object] = {
        "coord": rng.random((num, 3), dtype=np.float32) * 4, "color": rng.integers(0, 256, (num, 3)).astype(np.uint8),
        "normal": (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        "segment": rng.integers(-1, 2, num).astype(np.int16), "instance": rng.integers(-1, 3, num).astype(np.int32),
        "superpoint": rng.integers(0, 9, num).astype(np.int32), "boxes": boxes(1, 2), "group": "house",
        "sentences": (Sentence("the chair", 1, True), Sentence("a chair by the door", 0, False)),
    }  # fmt: skip
    return Scene(name=name, **values | changes)  # type: ignore[arg-type]


def write(folder: Path, *scenes: Scene, **changes: object) -> SceneStoreInfo:
    values: dict[str, object] = {"classes": ("floor", "chair"), "box_classes": ("chair",), "source": "test"}
    return write_scenes(folder, scenes, **{"settings": {}} | values | changes)  # type: ignore[arg-type]


def test_scenes_come_back_as_they_were(tmp_path: Path) -> None:
    full = scene("a/b.ply", split="test")
    bare = scene("bare", 20, color=None, normal=None, superpoint=None, boxes=None, sentences=())
    info = write(tmp_path / "store", full, bare)
    store = SceneStore(tmp_path / "store")
    assert store.names.tolist() == ["a/b.ply", "bare"]
    assert store.num_points.tolist() == [50, 20]
    assert store.rows("test").tolist() == [0]
    assert store.groups.tolist() == ["house", "house"]
    assert (info.counts["scenes"], info.counts["points"], info.counts["test"], info.counts["boxes"]) == (2, 70, 1, 2)
    assert store.info == info
    for row, given in enumerate((full, bare)):
        found = store.scene(row)
        for name in ("coord", "color", "segment", "instance", "superpoint"):
            np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
            assert getattr(given, name) is None or getattr(found, name).dtype == getattr(given, name).dtype
        assert (found.sentences, found.split, found.group) == (given.sentences, given.split, given.group)
    np.testing.assert_allclose(store.scene(0).normal, full.normal, atol=5e-4)
    for name, array in vars(full.boxes).items():
        np.testing.assert_array_equal(getattr(store.scene(0).boxes, name), array)
    assert store.scene(1).boxes is store.scene(1).normal is None


def test_large_stores_are_divided_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_store, "SHARD_POINTS", 60)
    given = [scene(f"{i}", 30 + i) for i in range(7)]
    write(tmp_path / "store", *given)
    assert len(list((tmp_path / "store/scenes").glob("*.h5"))) == 4
    store = SceneStore(tmp_path / "store")
    for row in (6, 0, 3):
        np.testing.assert_array_equal(store.scene(row).coord, given[row].coord)


def test_the_digest_follows_every_value(tmp_path: Path) -> None:
    color = scene().color
    assert color is not None
    changed = color.copy()
    changed[0, 0] ^= 1
    variants = [
        scene(), scene(color=changed), scene(color=None), scene(split="test"), scene(aligned=True), scene("b"),
        scene(boxes=boxes(1, 3)), scene(sentences=(Sentence("the chair", 1, False),)),
    ]  # fmt: skip
    digests = {write(tmp_path / "store", each).digest for each in variants}
    digests.add(write(tmp_path / "store", scene(), settings={"max_points": 5}).digest)
    assert len(digests) == len(variants) + 1
    assert write(tmp_path / "store", scene()).digest in digests


def test_aligned_and_other_scenes_are_never_mixed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"b is aligned with the walls, a is not aligned; .* one store of each kind"):
        write(tmp_path / "store", scene("a"), scene("b", aligned=True))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([], "not a single scene"),
        ([scene("a"), scene("a")], "two scenes have the name a"),
        ([scene("a", split="val")], "known: train, test, pretrain"),
    ],
)
def test_stores_that_make_no_sense_are_refused(tmp_path: Path, scenes: list[Scene], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "store", *scenes)


def test_an_interrupted_write_keeps_the_old_store(tmp_path: Path) -> None:
    old = write(tmp_path / "store", scene())

    def stream() -> Iterator[Scene]:
        yield scene("other")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "store", stream(), classes=("floor", "chair"), box_classes=("chair",), source="test",
                     settings={})  # fmt: skip
    assert SceneStore(tmp_path / "store").info == old
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_boxes_without_volume_are_left_out_and_counted(tmp_path: Path) -> None:
    info = write(tmp_path / "store", scene(boxes=boxes(1, 0, float("nan"), 2)))
    found = SceneStore(tmp_path / "store").scene(0).boxes
    assert found is not None
    assert found.instance.tolist() == [0, 3]
    assert info.counts["boxes_left_out"] == 2
    assert "2 boxes have no volume and were left out." in info.notes


def test_what_is_unusual_is_said(tmp_path: Path) -> None:
    none = np.full(50, -1)
    odd = scene("odd", color=None, normal=None, segment=none.astype(np.int16), boxes=boxes())
    empty = scene("empty", instance=none.astype(np.int32), boxes=None)
    info = write(tmp_path / "store", scene(), odd, empty, failures=[Failure("x.ply", "empty", "no points")])
    assert info.quarantined == 1
    assert info.notes == [
        "1 of 3 scenes have no colour; they are grey to every network.",
        "1 of 3 scenes have no normals; networks on voxels see 0 in their place.",
        "1 of 3 scenes have no labelled point.",
        "2 of 3 scenes have no object.",
        "1 of 3 scenes have instances without classes; their instances are kept, but make no boxes.",
    ]
    assert SceneStore(tmp_path / "store").failures() == [{"path": "x.ply", "reason": "empty", "detail": "no points"}]


BAD = np.zeros((50, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"coord": np.where(np.arange(50)[:, None] == 3, np.nan, scene().coord).astype(np.float32)},
            "not_finite: 1 of 50",
        ),
        ({"coord": scene().coord * 1000}, r"wrong_units: a is \d+ m long.*prepare.scenes.unit"),
        ({"coord": BAD}, "zero_extent"),
        ({"segment": np.full(50, 2, np.int16)}, "wrong_labels: a: segment goes from 2 to 2, expected -1 to 1"),
        ({"segment": np.full(49, 0, np.int16)}, "50 points, but 49 of segment"),
        ({"instance": np.full(50, -2, np.int32)}, "instance goes down to -2"),
        ({"boxes": replace(boxes(1), label=np.array([1]))}, "box label goes from 1 to 1, expected 0 to 0"),
        ({"normal": BAD / np.float32(1) + np.float32(np.inf)}, "some normals"),
    ],
)
def test_scenes_that_cannot_be_used_are_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RejectedError, match=message):
        check_scene(scene(**changes), num_classes=2, num_box_classes=1)


def test_damaged_stores_say_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "store", scene())
    shard = tmp_path / "store/scenes/00000.h5"
    content = shard.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not HDF5"):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"00000\.h5: scene a cannot be read.*pointloom prepare"):
            SceneStore(tmp_path / "store").scene(0)
    (tmp_path / "store/index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        SceneStore(tmp_path / "store")
    description = tmp_path / "store/dataset.json"
    description.write_text(json.dumps({"format": 1, "kind": "objects"}))
    with pytest.raises(DataError, match="kind 'objects' of format 1, expected 'scenes'"):
        SceneStore(tmp_path / "store")
    description.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        SceneStore(tmp_path / "store")
    with pytest.raises(DataError, match="no prepared scenes here"):
        SceneStore(tmp_path / "nothing")


def test_boxes_of_instances_follow_their_points() -> None:
    coord = np.array([[0, 0, 0], [2, 1, 3], [1, 1, 1], [5, 5, 5], [6, 7, 8], [9, 9, 9], [8, 8, 8]], np.float32)
    given = replace(
        scene(num=7), coord=coord, boxes=None, instance=np.array([4, 4, 4, 9, 9, -1, 2], np.int32),
        segment=np.array([1, 1, 0, 0, 0, 1, 1], np.int16),
    )  # fmt: skip
    found = boxes_of_instances(given, classes=[1])
    assert found.instance.tolist() == [4]  # 9 is a floor, 2 is a single point without a volume
    np.testing.assert_array_equal(found.center, [[1, 0.5, 1.5]])
    np.testing.assert_array_equal(found.size, [[2, 1, 3]])
    assert (found.label.tolist(), found.heading.tolist()) == ([0], [0])
    assert boxes_of_instances(given, classes=[1, 0]).instance.tolist() == [4, 9]
    assert len(boxes_of_instances(replace(given, instance=np.full(7, -1, np.int32)), classes=[1]).label) == 0
