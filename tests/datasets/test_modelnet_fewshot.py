import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.datasets.modelnet40 import CLASSES
from pointloom.datasets.modelnet_fewshot import VARIANTS, find, fold_path
from pointloom.errors import DataError

Prepared = Callable[..., ObjectStore]
ORIGINAL = [12, 3, 39, 0, 20]


def write_fold(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    fold = {}
    for split, count in (("train", 10), ("test", 20)):
        items = [(rng.normal(size=(64, 6)).astype(np.float32), k, ORIGINAL[k]) for k in range(5) for _ in range(count)]
        fold[split] = [items[i] for i in rng.permutation(len(items))]
    path.write_bytes(pickle.dumps(fold))


def test_there_are_forty_folds() -> None:
    assert len(VARIANTS) == len(set(VARIANTS)) == 40


@pytest.mark.parametrize("name", ["5way_10shot", "5way10shot"])
def test_a_fold_becomes_a_store_with_its_own_labels(tmp_path: Path, prepared: Prepared, name: str) -> None:
    write_fold(tmp_path / "ModelNetFewshot" / name / "3.pkl")
    store = prepared("modelnet_fewshot", tmp_path, variant="5way_10shot/3")
    assert store.info.classes == tuple(CLASSES[k] for k in ORIGINAL)
    assert np.bincount(store.labels[store.rows("train")]).tolist() == [10] * 5
    assert np.bincount(store.labels[store.rows("test")]).tolist() == [20] * 5
    assert len(set(store.uids)) == 150


def test_a_fold_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "5way_10shot/0.pkl"
    write_fold(path)
    fold = pickle.loads(path.read_bytes())
    points, label, _ = fold["train"][0]
    fold["train"][0] = (points, label, 7)
    path.write_bytes(pickle.dumps(fold))
    with pytest.raises(DataError, match="more than one ModelNet40 class"):
        find(tmp_path, "5way_10shot/0")


def test_other_settings_and_missing_folds_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 and 10 way, 10 and 20 shot"):
        fold_path(tmp_path, way=3, shot=10, fold=0)
    with pytest.raises(DataError, match=r"0\.pkl \.\.\. 9\.pkl"):
        fold_path(tmp_path, way=10, shot=20, fold=9)
