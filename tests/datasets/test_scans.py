"""Plain scans: real PLY and PCD files, units, axes, size, and what cannot be used."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.clouds import Cloud, load_cloud
from pointloom.data.scene_store import SceneStore
from pointloom.errors import DataError, ParamsError
from tests.datasets.scannet_tree import write_scan

Prepared = Callable[..., SceneStore]


def test_real_scans_become_scenes_for_pre_training(shared: Path, tmp_path: Path, prepared_scenes: Prepared) -> None:
    for path in (
        shared / "data/scenes/aws_worlds/small-house.ply",
        *sorted((shared / "data/scenes/pcl_tutorials").iterdir()),
    ):
        (tmp_path / "in/sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in/sub" / path.name).symlink_to(path)
    (tmp_path / "in/.hidden.ply").write_text("ply")
    (tmp_path / "in/readme.txt").write_text("My scans.")
    store = prepared_scenes("scans", tmp_path / "in", scenes={"max_points": 100_000})
    counts = dict(zip(store.names.tolist(), store.num_points.tolist(), strict=True))
    assert counts["sub/small-house.ply"] == 60_000
    assert counts["sub/lamppost.pcd"] == 1_771
    assert counts["sub/min_cut_segmentation_tutorial.pcd"] == 9_311
    assert 50_000 < counts["sub/region_growing_rgb_tutorial.pcd"] <= 100_000  # of 259,847
    assert "2 scenes had more than 100000 points and were thinned on a grid." in store.info.notes
    assert set(store.splits) == {"pretrain"}
    house = store.scene(store.names.tolist().index("sub/small-house.ply"))
    assert house.color is not None
    assert house.normal is not None
    np.testing.assert_allclose(np.linalg.norm(house.normal, axis=1), 1, atol=2e-3)
    assert house.color.std() > 10
    assert store.scene(store.names.tolist().index("sub/room_scan1.pcd")).color is None
    assert store.info.counts["without_color"] == 3


def test_lists_choose_scans_to_test(tmp_path: Path, prepared_scenes: Prepared) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).random((100, 3)))
    (tmp_path / "train.txt").write_text("0.npy\n")
    (tmp_path / "test.txt").write_text("2.npy\n")
    store = prepared_scenes("scans", tmp_path, train_list="train.txt", test_list="test.txt")
    assert dict(zip(store.names.tolist(), store.splits.tolist(), strict=True)) == {"0.npy": "train", "2.npy": "test"}


def test_coordinates_of_a_map_keep_their_millimetres_and_broken_normals_are_estimated(
    tmp_path: Path, prepared_scenes: Prepared
) -> None:
    coord = np.round(np.random.default_rng(0).random((100, 3)) * [4, 2.5, 3], 3)
    normal = np.tile([0, 0, 1.0], (100, 1))
    normal[3] = np.nan
    np.save(tmp_path / "scan.npy", np.concatenate([coord + np.array([500_000, 4_000_000, 100]), normal], axis=1))
    scene = prepared_scenes("scans", tmp_path).scene(0)
    np.testing.assert_allclose(scene.coord, coord, atol=1e-5)
    assert scene.normal is not None
    np.testing.assert_allclose(np.linalg.norm(scene.normal, axis=1), 1, atol=2e-3)


def test_units_and_axes_are_converted(tmp_path: Path, prepared_scenes: Prepared) -> None:
    coord = np.random.default_rng(0).random((100, 3)) * [4000, 2500, 3000]
    np.save(tmp_path / "scan.npy", coord)
    with pytest.raises(DataError, match="1 of 1 inputs cannot be used") as caught:
        prepared_scenes("scans", tmp_path)
    assert "1 wrong_units" in str(caught.value)
    store = prepared_scenes("scans", tmp_path, up="y", scenes={"unit": "mm", "aligned": True})
    expected = np.stack([coord[:, 0], -coord[:, 2], coord[:, 1]], axis=1) / 1000
    np.testing.assert_allclose(store.scene(0).coord, expected, rtol=1e-6)
    assert store.info.aligned


def test_vertices_of_meshes_are_points(tmp_path: Path, prepared_scenes: Prepared) -> None:
    write_scan(tmp_path / "mesh")
    scene = prepared_scenes("scans", tmp_path).scene(0)
    assert scene.coord.shape == (24, 3)
    np.testing.assert_array_equal(scene.color, np.arange(24)[:, None] + np.arange(3))
    assert scene.normal is not None
    np.testing.assert_array_equal(scene.normal[0], [0, 0, 1])


def test_what_cannot_be_used_is_left_out(tmp_path: Path, prepared_scenes: Prepared) -> None:
    good = np.random.default_rng(0).random((100, 3))
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "nan.npy", np.where(good > 0.99, np.nan, good))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    np.save(tmp_path / "flat.npy", np.ones((100, 3)))
    np.save(tmp_path / "large.npy", np.random.default_rng(0).random((50_000, 3)))
    (tmp_path / "cut.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\n")
    store = prepared_scenes("scans", tmp_path, max_failure_ratio=0.9, max_file_mb=1)
    assert store.names.tolist() == ["good.npy"]
    assert {failure["path"]: failure["reason"] for failure in store.failures()} == {
        "nan.npy": "not_finite", "none.npy": "empty", "flat.npy": "zero_extent", "large.npy": "too_large",
        "cut.ply": "unreadable",
    }  # fmt: skip
    assert store.info.quarantined == 5


def test_memory_follows_the_file_and_not_the_scans_before_it(tmp_path: Path, prepared_scenes: Prepared) -> None:
    num = 300_000
    coord = np.random.default_rng(0).random((num, 3), dtype=np.float32) * np.float32([6, 5, 0.01])
    for folder, names, kept in (("one", "a", 2000), ("many", "abcd", num)):
        (tmp_path / folder).mkdir()
        for name in names:
            np.save(tmp_path / folder / f"{name}.npy", coord[:kept])
    prepared_scenes("scans", tmp_path / "one")  # what is loaded once does not count
    tracemalloc.start()
    store = prepared_scenes("scans", tmp_path / "many", scenes={"max_points": 20_000})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * (12 * num)  # of one file; docs/datasets.md
    assert (store.num_points <= 20_000).all()
    assert "4 scenes had more than 20000 points and were thinned on a grid." in store.info.notes


def test_scan_that_does_not_fit_into_memory_is_left_out(
    tmp_path: Path, prepared_scenes: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).random((100, 3)))

    def load(path: Path) -> Cloud:
        if path.name == "0.npy":
            raise MemoryError
        return load_cloud(path)

    monkeypatch.setattr("pointloom.datasets.scans.load_cloud", load)
    store = prepared_scenes("scans", tmp_path, max_failure_ratio=0.5)
    assert store.names.tolist() == ["1.npy"]
    assert [(failure["path"], failure["reason"]) for failure in store.failures()] == [("0.npy", "memory")]


def test_a_folder_without_scans_is_explained(tmp_path: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(DataError, match=r"there is no scan in it.*\n.*\n.*kitchen\.ply"):
        prepared_scenes("scans", tmp_path)
    with pytest.raises(ParamsError, match="has the variants files; got 'raw'"):
        prepared_scenes("scans", tmp_path, variant="raw")
