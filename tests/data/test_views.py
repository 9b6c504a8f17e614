import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointloom.data import views as views_module
from pointloom.data.records import Failure
from pointloom.data.views import DEPTH_UNIT, ObjectViews, ViewsInfo, ViewStore, encode_views, write_views
from pointloom.errors import DataError

SIZE, VIEWS = 24, 3


def pictures(i: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth colours, and depth with a background."""
    row, column = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    rgb = np.stack([np.stack([200 * row, 200 * column, 20 * i + 20 * v + 0 * row], axis=2) for v in range(VIEWS)])
    depth = np.stack([np.where(row > 0.25, 2 + column + 0.01 * (i + v), 0) for v in range(VIEWS)])
    return rgb.astype(np.uint8), depth.astype(np.float32)


def make(i: int, valid: tuple[bool, ...] = (True, False, True)) -> ObjectViews:
    rgb, depth = pictures(i)
    return encode_views(f"object-{i}", list(rgb), list(depth), valid=valid)


def info() -> ViewsInfo:
    poses = np.tile(np.eye(4), (VIEWS, 1, 1))
    poses[:, 2, 3] = 1 / 3  # a number that text must not round
    return ViewsInfo(
        layout="openshape12",
        size=SIZE,
        intrinsics=np.array([[30.0, 0, 12], [0, 30, 12], [0, 0, 1]]),
        poses=poses,
        renderer="egl",
        device="llvmpipe",
        settings={"size": SIZE},
        dataset_digest="a" * 64,
    )


def write(folder: Path, objects: Iterator[ObjectViews] | list[ObjectViews], **changes: object) -> ViewStore:
    folder.mkdir()
    failures = [Failure("bad.off", "nothing_visible", "empty")]
    write_views(folder, objects, info=replace(info(), **changes), failures=failures)
    return ViewStore(folder)


def test_views_return_what_was_written(tmp_path: Path) -> None:
    store = write(tmp_path / "views", (make(i) for i in range(5)))
    assert store.uids.tolist() == [f"object-{i}" for i in range(5)]
    assert store.row_of["object-3"] == 3
    assert store.valid.tolist() == [[True, False, True]] * 5
    np.testing.assert_allclose(store.coverage, 17 / 24, atol=1e-6)
    for i in (4, 0, 2):
        rgb, depth = pictures(i)
        assert np.abs(store.rgb(i).astype(int) - rgb).max() <= 6
        np.testing.assert_allclose(store.depth(i), depth, atol=DEPTH_UNIT / 2 + 1e-6)
        np.testing.assert_array_equal(store.depth(i) == 0, depth == 0)
    np.testing.assert_array_equal(store.rgb(1, [2, 0]), store.rgb(1)[[2, 0]])
    np.testing.assert_array_equal(store.info.poses, info().poses)
    np.testing.assert_array_equal(store.info.intrinsics, info().intrinsics)
    assert store.failures() == [{"path": "bad.off", "reason": "nothing_visible", "detail": "empty"}]


def test_objects_are_spread_over_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "SHARD_SIZE", 2)
    store = write(tmp_path / "views", (make(i) for i in range(5)))
    assert sorted(p.name for p in (tmp_path / "views/views").iterdir()) == ["00000.h5", "00001.h5", "00002.h5"]
    for i in range(5):
        np.testing.assert_allclose(store.depth(i), pictures(i)[1], atol=DEPTH_UNIT)


def test_digest_depends_on_pictures_settings_and_store(tmp_path: Path) -> None:
    def digest(name: str, objects: list[ObjectViews], **changes: object) -> str:
        return write(tmp_path / name, objects, **changes).info.digest

    base = digest("a", [make(0), make(1)])
    assert digest("b", [make(0), make(1)]) == base
    assert digest("c", [make(0), make(2)]) != base
    assert digest("d", [make(0), make(1)], dataset_digest="b" * 64) != base
    assert digest("e", [make(0), make(1)], settings={"size": SIZE, "version": 2}) != base


def test_an_opened_store_can_be_pickled(tmp_path: Path) -> None:
    store = write(tmp_path / "views", [make(0)])
    expected = store.rgb(0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).rgb(0), expected)


def test_views_of_another_store_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "views", [make(0)])
    ViewStore(tmp_path / "views", dataset_digest="a" * 64)
    with pytest.raises(
        DataError, match=r"rendered from another prepared store \(aaaaaaaaaaaa, expected bbbbbbbbbbbb\)"
    ):
        ViewStore(tmp_path / "views", dataset_digest="b" * 64)


def test_damage_is_named_with_file_object_and_next_step(tmp_path: Path) -> None:
    import h5py

    folder = tmp_path / "views"
    write(folder, [make(0), make(1)])
    shard = folder / "views/00000.h5"
    with h5py.File(shard, "r+") as file:
        end = int(file["rgb_end"][0, -1])
        file["rgb"][end : end + 200] = 0
    store = ViewStore(folder)
    store.rgb(0)
    with pytest.raises(DataError, match=r"00000\.h5: rgb of object object-1 is damaged .*run `pointloom render` again"):
        store.rgb(1)
    shard.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"00000\.h5: depth of object object-0 is damaged"):
        ViewStore(folder).depth(0)
    shard.unlink()
    with pytest.raises(DataError, match="is damaged"):
        ViewStore(folder).depth(0)
    (folder / "index.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read"):
        ViewStore(folder)
    description = folder / "views.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(DataError, match="format 99, expected 1"):
        ViewStore(folder)
    description.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ViewStore(folder)
    with pytest.raises(DataError, match=r"no views here .*run `pointloom render` first"):
        ViewStore(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_a_single_wrong_byte_is_damage_though_it_may_still_decode(tmp_path: Path, kind: str) -> None:
    views = make(0)
    write(tmp_path / "views", [views])
    shard = tmp_path / "views/views/00000.h5"
    content = bytearray(shard.read_bytes())
    picture = getattr(views, kind)[1]
    content[content.index(picture) + len(picture) - 20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"00000\.h5: {kind} of object object-0 is damaged .*run `pointloom render` again"
    ):
        getattr(ViewStore(tmp_path / "views"), kind)(0)


def test_wrong_numbers_of_views_and_no_views_at_all_are_errors(tmp_path: Path) -> None:
    rgb, depth = pictures(0)
    with pytest.raises(DataError, match=r"object x has \[2\] views, expected 3"):
        write(tmp_path / "a", [encode_views("x", list(rgb[:2]), list(depth[:2]), valid=[True, True])])
    with pytest.raises(DataError, match="not a single object with a usable view"):
        write(tmp_path / "b", [])
