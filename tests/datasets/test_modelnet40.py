import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.datasets.modelnet40 import CLASSES, find
from pointloom.errors import DataError

Prepared = Callable[..., ObjectStore]


def write_dat(root: Path) -> dict[str, tuple[list[np.ndarray], list[int]]]:
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = {}
    for split, labels in (("train", [0, 39, 23]), ("test", [39, 0])):
        clouds = [rng.normal(size=(96, 6)).astype(np.float32) for _ in labels]
        arrays = [np.array([label], dtype=np.int32) for label in labels]
        (root / f"modelnet40_{split}_8192pts_fps.dat").write_bytes(pickle.dumps([clouds, arrays]))
        written[split] = (clouds, labels)
    return written


def test_forty_classes_are_in_the_published_order() -> None:
    assert len(CLASSES) == 40
    assert list(CLASSES) == sorted(CLASSES)
    assert CLASSES.index("night_stand") == 23


def test_the_cached_layout_gives_labels_and_points_of_the_pickle(tmp_path: Path, prepared: Prepared) -> None:
    written = write_dat(tmp_path / "modelnet40_normal_resampled")
    store = prepared("modelnet40", tmp_path, variant="dat", num_points=96)
    assert store.info.classes == CLASSES
    for split, (clouds, labels) in written.items():
        rows = store.rows(split)
        assert store.labels[rows].tolist() == labels
        for row, cloud in zip(rows, clouds, strict=True):
            transform = np.array(store.index["transform"][row]).reshape(4, 4)
            expected = cloud[:, :3] @ transform[:3, :3].T + transform[:3, 3]
            coord = store.coords(np.array([row]))[0]
            assert np.linalg.norm(coord[:, None] - expected[None], axis=-1).min(axis=0).max() < 1e-5


def test_a_pickle_of_something_else_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "modelnet40_train_8192pts_fps.dat").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match="expected a pair of lists"):
        find(tmp_path, "dat")


def test_real_text_layout_keeps_lists_class_order_and_normals(derived: Path, prepared: Prepared) -> None:
    root = derived / "modelnet40_normal_resampled_layout"
    store = prepared("modelnet40", root, variant="resampled", num_points=256)
    assert store.info.classes == ("chair", "car")  # the order of the name list, not the alphabet
    for split in ("train", "test"):
        names = (root / f"modelnet40_{split}.txt").read_text().split()
        assert store.names[store.rows(split)].tolist() == names
    row = 0
    table = np.loadtxt(root / str(store.paths[row]), delimiter=",")
    transform = np.array(store.index["transform"][row]).reshape(4, 4)
    expected = table[:, :3] @ transform[:3, :3].T + transform[:3, 3]
    coord, normal = store.coords(np.array([row]))[0], store.normals(np.array([row]))[0]
    which = np.linalg.norm(coord[:, None] - expected[None], axis=-1).argmin(axis=1)
    turned = np.stack([table[which, 3], -table[which, 5], table[which, 4]], axis=1)
    same = (normal * turned).sum(axis=1)
    assert np.median(same) > 0.999


def test_real_h5_layout_has_every_object_with_its_label(derived: Path, prepared: Prepared) -> None:
    root = derived / "modelnet40_ply_hdf5_2048_layout"
    store = prepared("modelnet40", root, variant="h5", num_points=64)
    assert (len(store.rows("train")), len(store.rows("test"))) == (135, 58)
    names = (root / "shape_names.txt").read_text().split()
    assert store.info.classes == tuple(names)
    for split in ("train", "test"):
        with h5py.File(root / f"ply_data_{split}0.h5", "r") as file:
            labels, data = np.asarray(file["label"]).reshape(-1), np.asarray(file["data"])
        rows = store.rows(split)
        np.testing.assert_array_equal(store.labels[rows], labels)
        first = data[:, :64]  # the first points of the file, in its order, only turned from +Y up to +Z up
        np.testing.assert_array_equal(store.coords(rows), np.stack([first[..., 0], -first[..., 2], first[..., 1]], -1))
    assert store.info.settings["loader_transform"] == "none"
    assert any("these have 135 and 58" in note for note in store.info.notes)


@pytest.mark.parametrize(
    ("variant", "tree"), [("resampled", "airplane_0001.txt"), ("dat", "8192pts_fps.dat"), ("h5", "ply_data_train0.h5")]
)
def test_each_layout_has_its_own_tree_in_the_error(tmp_path: Path, variant: str, tree: str) -> None:
    with pytest.raises(DataError, match="this is not ModelNet40") as caught:
        find(tmp_path / "nowhere", variant)
    message = str(caught.value)
    assert "there is no such folder" in message
    assert tree in message
    assert "licence:" in message
    assert ("pointloom datasets get" in message) == (variant != "dat")


def test_a_name_of_no_class_and_a_missing_object_are_found(derived: Path, tmp_path: Path) -> None:
    for name in ("modelnet40_shape_names.txt", "modelnet40_test.txt"):
        (tmp_path / name).write_text((derived / "modelnet40_normal_resampled_layout" / name).read_text())
    (tmp_path / "modelnet40_train.txt").write_text("tree_0001\n")
    with pytest.raises(DataError, match=r"tree_0001 of modelnet40_train\.txt belongs to no class"):
        find(tmp_path, "resampled")
    (tmp_path / "modelnet40_train.txt").write_text("car_0001\n")
    with pytest.raises(DataError, match="listed files are missing"):
        find(tmp_path, "resampled")
