from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.datasets.shapenet55 import CATEGORIES, DATASET, find
from pointloom.errors import DataError

Prepared = Callable[..., ObjectStore]


def write_official(root: Path) -> Path:
    (root / "shapenet_pc").mkdir(parents=True)
    (root / "ShapeNet-55").mkdir()
    lists = {"train": ["02691156-a1-b2-c3", "03001627-x"], "test": ["04554684-y"]}
    rng = np.random.default_rng(0)
    for split, names in lists.items():
        (root / "ShapeNet-55" / f"{split}.txt").write_text("".join(f"{name}.npy\n" for name in names))
        for name in names:
            np.save(root / "shapenet_pc" / f"{name}.npy", rng.normal(size=(80, 3)).astype(np.float32))
    return root


def test_there_are_fifty_five_categories_with_different_names() -> None:
    assert len(CATEGORIES) == len(set(CATEGORIES.values())) == 55


def test_the_id_of_a_model_keeps_its_own_dashes(tmp_path: Path) -> None:
    found = find(write_official(tmp_path / "ShapeNet55-34").parent, "train_test")
    assert [(o.category, o.name, o.split) for o in found.objects] == [
        ("airplane", "a1-b2-c3", "train"),
        ("chair", "x", "train"),
        ("washer", "y", "test"),
    ]


def test_whole_counts_the_test_list_as_training(tmp_path: Path) -> None:
    found = find(write_official(tmp_path), "whole")
    assert {o.split for o in found.objects} == {"train"}


def test_real_clouds_are_prepared_in_the_object_frame(derived: Path, prepared: Prepared) -> None:
    root = derived / "shapenet55_layout"
    store = prepared("shapenet55", root, variant="train_test", num_points=512)
    lists = {split: (root / f"ShapeNet-55/{split}.txt").read_text().split() for split in ("train", "test")}
    for split, names in lists.items():
        assert sorted(Path(p).name for p in store.paths[store.rows(split)]) == sorted(names)
    row = int(store.rows("train")[0])
    raw = np.load(root / str(store.paths[row]))
    turned = np.stack([raw[:, 0], -raw[:, 2], raw[:, 1]], axis=1)
    center = (turned.min(0) + turned.max(0)) / 2
    expected = (turned - center) / np.linalg.norm(turned - center, axis=1).max()
    coord = store.coords(np.array([row]))[0]
    distance = np.linalg.norm(coord[:, None] - expected[None], axis=-1).min(axis=1)
    assert distance.max() < 1e-5
    assert DATASET.conventions.loader_transform == store.info.settings["loader_transform"] == "unit_sphere"


def test_a_listed_file_that_is_missing_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    root = write_official(tmp_path)
    (root / "shapenet_pc/03001627-x.npy").unlink()
    with pytest.raises(DataError, match=r"1 of its 3 listed files are missing.*03001627-x\.npy"):
        find(root, "train_test")


def test_a_damaged_cloud_is_quarantined_with_its_reason(tmp_path: Path, prepared: Prepared) -> None:
    root = write_official(tmp_path / "ShapeNet55-34")
    (root / "shapenet_pc/03001627-x.npy").write_bytes(b"\x93NUMPY")
    store = prepared("shapenet55", root, variant="train_test", max_failure_ratio=0.5)
    assert len(store) == 2
    assert [f["reason"] for f in store.failures()] == ["unreadable"]
