"""Pointcept's layout: real rooms, what is optional, and what was written is read again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.scene_store import SceneStore
from pointloom.datasets.pointcept import write_folders
from pointloom.datasets.scannet_labels import CLASSES_20
from pointloom.errors import DataError, ParamsError
from tests.datasets.scannet_tree import write_tree

Prepared = Callable[..., SceneStore]


@pytest.fixture
def worlds(shared: Path) -> Path:
    """Two real worlds in blocks: a house to train, a store to validate."""
    return shared / "data/scenes/aws_worlds"


def test_real_blocks_keep_every_point_and_label(worlds: Path, prepared_scenes: Prepared) -> None:
    lists = {
        f"{ours}_list": str(worlds / f"splits/cross_{theirs}.txt")
        for ours, theirs in (("train", "train"), ("test", "val"))
    }
    store = prepared_scenes("pointcept", worlds, variant="scannet20", **lists)
    assert [len(store.rows(split)) for split in ("train", "test")] == [15, 15]
    assert {name.rsplit("_", 1)[0] for name in store.names[store.rows("test")]} == {"bookstore"}
    assert store.info.counts["points"] == 317_456 + 330_750
    assert not store.info.aligned
    row = store.names.tolist().index("small_house_21")
    scene, folder = store.scene(row), worlds / "train/small_house_21"
    for name, file in (("coord", "coord"), ("color", "color"), ("segment", "segment20"), ("instance", "instance")):
        np.testing.assert_array_equal(getattr(scene, name), np.load(folder / f"{file}.npy"))
    assert scene.boxes is not None
    for center, size, label, instance in zip(
        *(getattr(scene.boxes, n) for n in ("center", "size", "label", "instance")), strict=True
    ):
        inside = scene.coord[scene.instance == instance]
        np.testing.assert_allclose([center - size / 2, center + size / 2], [inside.min(0), inside.max(0)], atol=1e-5)
        votes = np.bincount(scene.segment[scene.instance == instance], minlength=20)
        assert CLASSES_20.classes[votes.argmax()] == store.info.box_classes[label]


def test_lists_choose_the_split_and_leave_the_rest_out(worlds: Path, prepared_scenes: Prepared) -> None:
    lists = {"train_list": "splits/house_val.txt", "test_list": "splits/house_train.txt"}
    store = prepared_scenes("pointcept", worlds, variant="scannet20", **lists)
    assert [len(store.rows(split)) for split in ("train", "test")] == [4, 11]
    assert "Scenes in neither list, left out: 15." in store.info.notes
    with pytest.raises(DataError, match="4 scenes are in the train and in the test list"):
        prepared_scenes("pointcept", worlds, variant="scannet20", **lists | {"test_list": "splits/house_val.txt"})
    with pytest.raises(DataError, match="the list is neither in"):
        prepared_scenes("pointcept", worlds, variant="scannet20", **lists | {"test_list": "splits/no.txt"})


@pytest.fixture
def raw(tmp_path: Path, prepared_scenes: Prepared) -> SceneStore:
    tree = write_tree(tmp_path / "ScanNet", {"scene0000_00": "train", "scene0001_00": "val", "scene0707_00": "test"})
    prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})
    (tmp_path / "store").rename(tmp_path / "raw")
    return SceneStore(tmp_path / "raw")


def test_what_was_written_is_read_again(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    out = tmp_path / "scannet"
    assert write_folders(out, [raw.scene(row) for row in range(3)]) == 3
    assert not (out / "test/scene0707_00/segment20.npy").exists()
    store = prepared_scenes("pointcept", out, variant="scannet20")
    for row, split in enumerate(("train", "test", "pretrain")):
        given, found = raw.scene(row), store.scene(row)
        assert (found.name, found.split, found.group) == (given.name, split, given.group)
        for name in ("coord", "color", "normal", "segment", "instance"):
            np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
        assert (found.boxes is None) == (given.boxes is None) == (split == "pretrain")
        if found.boxes is not None:
            np.testing.assert_array_equal(found.boxes.center, given.boxes.center)


def test_the_layout_of_s3dis_goes_by_areas(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    from dataclasses import replace

    rooms = [replace(raw.scene(row), name=f"Area_{a}_hall_1", group=f"Area_{a}") for row, a in ((0, 1), (1, 5))]
    write_folders(tmp_path / "s3dis", rooms, segment="segment.npy", areas=True)
    labels = tmp_path / "s3dis/Area_1/hall_1/segment.npy"
    np.save(labels, np.load(labels)[:, None])  # Pointcept's own files have a column
    store = prepared_scenes("s3dis", tmp_path / "s3dis", variant="pointcept")
    assert store.names.tolist() == ["Area_1_hall_1", "Area_5_hall_1"]
    assert store.splits.tolist() == ["train", "test"]
    np.testing.assert_array_equal(store.scene(0).segment, rooms[0].segment)
    np.testing.assert_array_equal(store.scene(0).normal, rooms[0].normal)
    np.testing.assert_array_equal(store.scene(0).coord.min(0), 0)


def test_aligned_scenes_are_not_written(tmp_path: Path, worlds: Path, prepared_scenes: Prepared) -> None:
    store = prepared_scenes("pointcept", worlds, variant="scannet20", scenes={"aligned": True})
    assert store.info.aligned
    with pytest.raises(DataError, match=r"is aligned with the walls, Pointcept's ScanNet is not"):
        write_folders(tmp_path / "out", [store.scene(0)])


def test_only_coordinates_must_be_there(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    out = tmp_path / "scannet"
    write_folders(out, [raw.scene(row) for row in range(3)])
    for name in ("color", "normal", "segment20"):
        (out / f"val/scene0001_00/{name}.npy").unlink()
    store = prepared_scenes("pointcept", out, variant="scannet20")
    bare = store.scene(1)
    assert bare.color is None
    assert (bare.segment == -1).all()
    assert (bare.instance >= 0).all()
    assert store.info.counts["instances_without_classes"] == 1
    assert len(bare.boxes.label) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("coord", np.full((24, 3), np.nan, np.float32), "not_finite"),
        ("coord", np.zeros((0, 3), np.float32), "unreadable"),
        ("coord", np.arange(72).reshape(24, 3) * 1000.0, "wrong_units"),
        ("segment20", np.full(24, 20), "wrong_labels"),
        ("segment20", np.full(24, 70_000), "wrong_labels"),
        ("instance", np.zeros(23), "unreadable"),
        ("color", np.zeros((24, 4)), "unreadable"),
        ("color", np.linspace(0, 1, 72, dtype=np.float32).reshape(24, 3), "wrong_colors"),
    ],
)
def test_damaged_scenes_are_quarantined(
    tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared, file: str, content: np.ndarray, reason: str
) -> None:
    out = tmp_path / "scannet"
    write_folders(out, [raw.scene(row) for row in range(3)])
    np.save(out / f"train/scene0000_00/{file}.npy", content)
    store = prepared_scenes("pointcept", out, variant="scannet20", max_failure_ratio=0.4)
    assert [failure["reason"] for failure in store.failures()] == [reason]
    assert store.names.tolist() == ["scene0001_00", "scene0707_00"]


def test_files_of_a_scene_may_not_be_too_large(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    out = tmp_path / "scannet"
    write_folders(out, [raw.scene(row) for row in range(3)])
    np.save(out / "train/scene0000_00/coord.npy", np.random.default_rng(0).random((100_000, 3), dtype=np.float32))
    store = prepared_scenes("pointcept", out, variant="scannet20", max_failure_ratio=0.4, max_file_mb=1)
    assert [failure["reason"] for failure in store.failures()] == ["too_large"]


def test_sentences_need_scans_along_the_walls(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    out = tmp_path / "scannet"
    write_folders(out, [raw.scene(row) for row in range(3)])
    (tmp_path / "refer.json").write_text("[]")
    for source, folder, variant in (("pointcept", out, "scannet20"), ("scannet", tmp_path / "ScanNet", "classes20")):
        scenes = {"aligned": False, "sentences": [str(tmp_path / "refer.json")]}
        with pytest.raises(ParamsError, match="ScanRefer's boxes are those of scans turned along the walls"):
            prepared_scenes(source, folder, variant=variant, scenes=scenes)


def test_the_200_classes_need_their_table(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    out = tmp_path / "elsewhere/scannet"
    write_folders(out, [raw.scene(row) for row in range(3)], segment="segment200.npy")
    with pytest.raises(DataError, match=r"names of the 200 classes are in scannetv2-labels\.combined\.tsv"):
        prepared_scenes("pointcept", out, variant="scannet200")
    (tmp_path / "ScanNet/scannetv2-labels.combined.tsv").rename(out / "scannetv2-labels.combined.tsv")
    assert len(prepared_scenes("pointcept", out, variant="scannet200").info.classes) == 200
