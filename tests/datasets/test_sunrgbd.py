"""SUN RGB-D in VoteNet's format and from its own images and tables, headings counter-clockwise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pointloom.data.scene_store import SceneStore
from pointloom.datasets.sunrgbd import BOX_CLASSES, FOLDERS, META, SPLIT, decode_depth, unproject, write_frames
from pointloom.errors import DataError

Prepared = Callable[..., SceneStore]


def write_votenet(root: Path, split: str, name: str, boxes: Any = ()) -> None:
    folder = root / FOLDERS[split]
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    np.savez_compressed(folder / f"{name}_pc.npz", pc=rng.random((40, 6)))
    np.save(folder / f"{name}_bbox.npy", np.array(boxes, dtype=np.float64).reshape(-1, 8))


def test_votenet_format_is_turned_into_ours(tmp_path: Path, prepared_scenes: Prepared) -> None:
    write_votenet(tmp_path, "train", "000002", [[1, 2, 0.5, 0.3, 0.4, 0.5, np.pi / 6, 3]])
    write_votenet(tmp_path, "test", "000001")
    store = prepared_scenes("sunrgbd", tmp_path, variant="votenet")
    assert dict(zip(store.names.tolist(), store.splits.tolist(), strict=True)) == {"000002": "train", "000001": "test"}
    assert (store.info.classes, store.info.box_classes) == ((), BOX_CLASSES)
    scene = store.scene(0)
    given = np.load(tmp_path / FOLDERS["train"] / "000002_pc.npz")["pc"]
    np.testing.assert_array_equal(scene.coord, given[:, :3].astype(np.float32))
    assert scene.color is not None
    np.testing.assert_allclose(scene.color / 255, given[:, 3:], atol=0.5 / 255 + 1e-9)
    boxes = scene.boxes
    assert boxes is not None
    np.testing.assert_allclose(boxes.size, [[0.6, 0.8, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(boxes.heading, [-np.pi / 6], rtol=1e-6)
    assert store.info.box_classes[boxes.label[0]] == "chair"
    empty = store.scene(1).boxes  # frames without objects stay
    assert empty is not None
    assert len(empty.label) == 0
    assert not store.info.aligned


@pytest.mark.parametrize(
    ("boxes", "reason"), [([[0, 0, 0, 1, 1, 1, 0, 10]], "wrong_labels"), ([[0, 0, 0, 1, 1, 1, 0, 0.5]], "wrong_labels")]
)
def test_damaged_frames_are_quarantined(tmp_path: Path, prepared_scenes: Prepared, boxes: Any, reason: str) -> None:
    write_votenet(tmp_path, "train", "000001", boxes)
    for i in range(2, 5):
        write_votenet(tmp_path, "train", f"00000{i}")
    (tmp_path / FOLDERS["train"] / "000002_pc.npz").write_bytes(b"PK")
    (tmp_path / FOLDERS["train"] / "000003_bbox.npy").unlink()
    store = prepared_scenes("sunrgbd", tmp_path, variant="votenet", max_failure_ratio=0.8)
    assert [failure["reason"] for failure in store.failures()] == [reason, "unreadable", "missing_file"]


def test_depth_bits_are_turned_back() -> None:
    millimetres = np.array([[0, 1, 1500, 7999, 9000, 65535]], np.uint16)
    stored = (millimetres << 3) | (millimetres >> 13)
    np.testing.assert_allclose(decode_depth(stored), [[0, 0.001, 1.5, 7.999, 8, 8]])


def test_pixels_become_points_that_project_back() -> None:
    camera = np.array([[500.0, 0, 3], [0, 400, 2], [0, 0, 1]])
    depth = np.random.default_rng(0).random((4, 6)) + 1
    points = unproject(depth, camera)
    right, forward, up = points.T
    u, v = 500 * right / forward + 3, 400 * -up / forward + 2
    np.testing.assert_allclose(u.reshape(4, 6), np.tile(np.arange(1, 7), (4, 1)), atol=1e-9)
    np.testing.assert_allclose(v.reshape(4, 6), np.tile(np.arange(1, 5)[:, None], (1, 6)), atol=1e-9)
    np.testing.assert_array_equal(forward, depth.reshape(-1))


def write_raw(root: Path) -> np.ndarray:
    """Two frames, one in each split; returns the first depth image in millimetres."""
    tilt = np.array([[1.0, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    rows, paths = [], []
    rng = np.random.default_rng(0)
    depth = rng.integers(1000, 3000, (2, 12, 16)).astype(np.uint16)
    depth[:, 0, 0] = 0
    front = np.array([np.cos(2.0), np.sin(2.0), 0])
    box = {"classname": "sofa", "centroid": np.array([[1.0, 2, 0.4]]), "coeffs": np.array([[0.5, -1.0, 0.4]]),
           "orientation": front[None], "basis": np.eye(3)}  # fmt: skip
    other = box | {"classname": "lamp"}
    for i in range(2):
        folder = root / f"SUNRGBD/kv1/NYUdata/NYU000{i}"
        for sub in ("depth", "image"):
            (folder / sub).mkdir(parents=True)
        Image.fromarray((depth[i] << 3) | (depth[i] >> 13)).save(folder / f"depth/NYU000{i}.png")
        Image.fromarray(np.full((12, 16, 3), 100 + i, np.uint8)).save(folder / f"image/NYU000{i}.png")
        place = f"/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU000{i}"
        paths.append(place)
        boxes = np.array([[list(b.values()) for b in (box, other)]], dtype=object) if i == 0 else np.empty((0, 0))
        rows.append({"depthpath": f"{place}/depth/NYU000{i}.png", "rgbpath": f"{place}/image/NYU000{i}.png",
                     "K": np.array([[500.0, 0, 8], [0, 500, 6], [0, 0, 1]]), "Rtilt": tilt,
                     "groundtruth3DBB": _struct([box, other]) if i == 0 else boxes})  # fmt: skip
    for name in (META, SPLIT):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    savemat(root / META, {"SUNRGBDMeta": _struct(rows)})
    lists = {"alltrain": np.array([[paths[0]]], dtype=object), "alltest": np.array([[paths[1]]], dtype=object)}
    savemat(root / SPLIT, lists)
    return depth[0]


def _struct(rows: list[dict[str, Any]]) -> np.ndarray:
    """A struct array as Matlab writes it."""
    array = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            array[0, i][name] = value
    return array


def test_raw_frames_need_no_matlab(tmp_path: Path, prepared_scenes: Prepared) -> None:
    depth = write_raw(tmp_path)
    store = prepared_scenes("sunrgbd", tmp_path, variant="raw")
    assert dict(zip(store.names.tolist(), store.splits.tolist(), strict=True)) == {"000001": "train", "000002": "test"}
    scene = store.scene(0)
    assert len(scene.coord) == depth.size - 1  # nothing was measured in one pixel
    v, u = np.divmod(np.arange(depth.size), 16)
    z = depth.reshape(-1) / 1000
    flat = np.stack([(u + 1 - 8) * z / 500, z, -(v + 1 - 6) * z / 500], axis=1)
    expected = np.stack([flat[:, 0], 0.8 * flat[:, 1] - 0.6 * flat[:, 2], 0.6 * flat[:, 1] + 0.8 * flat[:, 2]], axis=1)
    np.testing.assert_allclose(scene.coord, expected[1:], atol=1e-5)
    assert (scene.color == 100).all()
    boxes = scene.boxes
    assert boxes is not None
    assert [store.info.box_classes[i] for i in boxes.label] == ["sofa"]  # a lamp is not among the ten
    np.testing.assert_allclose(boxes.size, [[2.0, 1.0, 0.8]], rtol=1e-6)  # along the front, across, up
    np.testing.assert_allclose(boxes.heading, [2.0], rtol=1e-6)
    assert len(store.scene(1).boxes.label) == 0  # type: ignore[union-attr]


def test_wrong_trees_and_tables_are_explained(tmp_path: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(DataError, match=r"000001_bbox\.npy"):
        prepared_scenes("sunrgbd", tmp_path, variant="votenet")
    write_raw(tmp_path)
    (tmp_path / META).write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match="its tables cannot be read"):
        prepared_scenes("sunrgbd", tmp_path, variant="raw")
    (tmp_path / SPLIT).unlink()
    with pytest.raises(DataError, match=r"allsplit\.mat is not in it"):
        prepared_scenes("sunrgbd", tmp_path, variant="raw")


def test_what_was_written_is_read_again_and_points_vote_for_the_boxes_they_are_in(
    tmp_path: Path, prepared_scenes: Prepared
) -> None:
    middle = [[0.5, 0.5, 0.5, 0.2, 0.3, 0.4, 0.7, 3], [0.6, 0.5, 0.5, 0.4, 0.4, 0.4, -0.2, 0]]
    write_votenet(tmp_path / "in", "train", "000002", middle)
    write_votenet(tmp_path / "in", "test", "000009")
    given = prepared_scenes("sunrgbd", tmp_path / "in", variant="votenet")
    scenes = [given.scene(row) for row in range(2)]
    assert write_frames(tmp_path / "out", scenes, box_classes=given.info.box_classes) == 2
    again = prepared_scenes("sunrgbd", tmp_path / "out", variant="votenet")
    assert again.names.tolist() == ["000002", "000009"]
    for scene, found in zip(scenes, (again.scene(0), again.scene(1)), strict=True):
        np.testing.assert_array_equal(found.coord, scene.coord)
        np.testing.assert_array_equal(found.color, scene.color)
        for name, array in vars(scene.boxes).items():
            np.testing.assert_array_equal(getattr(found.boxes, name), array)
    votes = np.load(tmp_path / "out" / FOLDERS["train"] / "000002_votes.npz")["point_votes"]
    table = np.array(middle)
    for point, row in zip(scenes[0].coord, votes, strict=True):
        turn = table[:, 6]  # clockwise, so that turning counter-clockwise by it undoes it
        x, y = (point[:2] - table[:, :2]).T
        along, across = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
        local = np.abs(np.stack([along, across, point[2] - table[:, 2]], axis=1))
        inside = (table[:, 3:6] >= local).all(axis=1)
        assert row[0] == inside.any()
        ways = (table[inside, :3] - point) if inside.any() else np.zeros((1, 3))
        np.testing.assert_allclose(row[1:4], ways[0], atol=1e-5)
        np.testing.assert_allclose(row[4:7], ways[-1], atol=1e-5)
    assert 0 < votes[:, 0].mean() < 1
    with pytest.raises(DataError, match="class 'lamp' is not among SUN RGB-D's ten classes"):
        write_frames(tmp_path / "none", scenes, box_classes=("lamp",))
