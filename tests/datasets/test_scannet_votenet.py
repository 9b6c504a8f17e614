"""VoteNet's export of ScanNet, written and read again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.scene_store import SceneStore
from pointloom.data.scenes import Scene
from pointloom.datasets.scannet_votenet import write_scans
from pointloom.errors import DataError
from tests.datasets.scannet_tree import write_tree

Prepared = Callable[..., SceneStore]
DATA = "scannet_train_detection_data"


@pytest.fixture
def raw(tmp_path: Path, prepared_scenes: Prepared) -> SceneStore:
    tree = write_tree(tmp_path / "ScanNet", {"scene0000_00": "train", "scene0001_00": "val"})
    prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True})
    (tmp_path / "store").rename(tmp_path / "raw")
    return SceneStore(tmp_path / "raw")


def write(folder: Path, store: SceneStore, *scenes: Scene, max_points: int | None = None) -> int:
    given = scenes or [store.scene(row) for row in range(len(store))]
    names = {"classes": store.info.classes, "box_classes": store.info.box_classes}
    return write_scans(folder, given, max_points=max_points, **names)


def test_the_export_has_the_official_numbers(tmp_path: Path, raw: SceneStore) -> None:
    assert write(tmp_path / "scannet", raw) == 2
    stem = tmp_path / f"scannet/{DATA}/scene0000_00"
    vertices, semantic, instance, box = (
        np.load(f"{stem}_{name}.npy") for name in ("vert", "sem_label", "ins_label", "bbox")
    )
    assert vertices.shape == (24, 6)
    assert semantic[[0, 4, 8, 16, 20]].tolist() == [2, 1, 5, 11, 0]
    assert instance[[0, 4, 8, 16, 20]].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(box, [[3.5, 7.5, -0.5, 1, 1, 1, 5]], atol=1e-6)
    assert (tmp_path / "scannet/meta_data/scannetv2_val.txt").read_text() == "scene0001_00\n"


@pytest.mark.parametrize("variant", ["classes20", "classes18"])
def test_what_was_written_is_read_again(
    tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared, variant: str
) -> None:
    write(tmp_path / "scannet", raw)
    store = prepared_scenes("scannet_votenet", tmp_path / "scannet", variant=variant)
    assert store.splits.tolist() == ["train", "test"]
    assert store.info.aligned
    given, found = raw.scene(0), store.scene(0)
    np.testing.assert_array_equal(found.coord, given.coord)
    np.testing.assert_array_equal(found.color, given.color)
    np.testing.assert_array_equal(found.instance, given.instance)
    shift = {"classes20": 0, "classes18": 2}[variant]
    np.testing.assert_array_equal(found.segment, np.maximum(given.segment - shift, -1))
    assert given.boxes is not None
    assert found.boxes is not None
    for name in ("center", "size", "heading", "label", "instance"):
        np.testing.assert_array_equal(getattr(found.boxes, name), getattr(given.boxes, name))


def test_large_scans_lose_points_but_no_box(tmp_path: Path, raw: SceneStore) -> None:
    write(tmp_path / "a", raw, max_points=10)
    write(tmp_path / "b", raw, max_points=10)
    for name in ("vert", "sem_label", "ins_label"):
        a, b = (np.load(tmp_path / f"{folder}/{DATA}/scene0001_00_{name}.npy") for folder in "ab")
        assert len(a) == 10
        np.testing.assert_array_equal(a, b)
    assert len(np.load(tmp_path / f"a/{DATA}/scene0001_00_bbox.npy")) == 1


def test_turned_boxes_become_their_hulls_and_other_classes_cannot_be_exported(
    tmp_path: Path, raw: SceneStore, caplog: pytest.LogCaptureFixture
) -> None:
    scene = raw.scene(0)
    assert scene.boxes is not None
    turned = replace(scene, boxes=replace(scene.boxes, heading=np.full(1, np.pi / 4, np.float32)))
    write(tmp_path / "hulls", raw, turned)
    (box,) = np.load(tmp_path / f"hulls/{DATA}/scene0000_00_bbox.npy")
    np.testing.assert_allclose(box, [3.5, 7.5, -0.5, 2**0.5, 2**0.5, 1, 5], rtol=1e-6)
    assert "1 boxes are turned; their hulls along the axes were written" in caplog.text
    with pytest.raises(DataError, match="'sky' is not among"):
        write_scans(tmp_path / "out", [scene], classes=("sky",), box_classes=())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("vert", np.zeros((24, 4), np.float32), "unreadable"),
        ("sem_label", np.zeros(23, np.int64), "unreadable"),
        ("sem_label", np.full(24, 41), "wrong_labels"),
        ("ins_label", np.full(24, 0.5), "wrong_labels"),
        ("bbox", np.zeros((1, 6)), "unreadable"),
        ("bbox", np.array([[0, 0, 0, 1, 1, 1, 2.0]]), "wrong_labels"),
        ("bbox", None, "missing_file"),
    ],
)
def test_damaged_exports_are_quarantined(
    tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared, name: str, content: np.ndarray | None, reason: str
) -> None:
    write(tmp_path / "scannet", raw)
    path = tmp_path / f"scannet/{DATA}/scene0000_00_{name}.npy"
    path.unlink()
    if content is not None:
        np.save(path, content)
    store = prepared_scenes("scannet_votenet", tmp_path / "scannet", variant="classes20", max_failure_ratio=0.5)
    assert [failure["reason"] for failure in store.failures()] == [reason]
    assert store.names.tolist() == ["scene0001_00"]


def test_scans_without_colour_and_without_objects_are_kept(
    tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared
) -> None:
    write(tmp_path / "scannet", raw)
    stem = tmp_path / f"scannet/{DATA}/scene0000_00"
    np.save(f"{stem}_vert.npy", np.load(f"{stem}_vert.npy")[:, :3])
    np.save(f"{stem}_bbox.npy", np.zeros((0, 7)))
    store = prepared_scenes("scannet_votenet", tmp_path / "scannet", variant="classes20")
    assert store.scene(0).color is None
    assert {"without_color": 1, "without_objects": 1}.items() <= store.info.counts.items()


def test_scans_without_colour_stay_without(tmp_path: Path, raw: SceneStore, prepared_scenes: Prepared) -> None:
    write(tmp_path / "scannet", raw, *(replace(raw.scene(row), color=None) for row in range(2)))
    assert prepared_scenes("scannet_votenet", tmp_path / "scannet", variant="classes20").scene(0).color is None


def test_boxes_find_their_instances_among_those_of_their_class(tmp_path: Path, prepared_scenes: Prepared) -> None:
    """Two chairs, one inside the box of the other, a table around both, and a chair that lost all of its points."""
    rng = np.random.default_rng(0)
    boxes = np.array([[0, 0, 0, 2, 2, 2, 5], [0.2, 0, 0, 1, 1, 1, 5], [0, 0, 0, 4, 4, 4, 7], [9, 9, 0, 1, 1, 1, 5.0]])
    owner = np.repeat([0, 1, 2, 3], 50)  # 3 is the floor
    coord = (rng.random((200, 3)) - 0.5) * np.array([[2.0], [1], [4], [6]])[owner] + [0.2, 0, 0] * (owner == 1)[:, None]
    folder = tmp_path / f"scannet/{DATA}"
    folder.mkdir(parents=True)
    (tmp_path / "scannet/scannetv2_train.txt").write_text("scene0000_00")
    for name, array in (
        ("vert", np.column_stack([coord, np.zeros((200, 3))])),
        ("sem_label", np.array([5, 5, 7, 2])[owner]),
        ("ins_label", np.array([7, 3, 9, 0])[owner]),
        ("bbox", boxes),
    ):
        np.save(folder / f"scene0000_00_{name}.npy", array)
    found = prepared_scenes("scannet_votenet", tmp_path / "scannet", variant="classes20").scene(0).boxes
    assert found is not None
    assert found.instance.tolist() == [6, 2, 8, -1]
