from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.datasets.scanobjectnn import CLASSES, FILES, find
from pointloom.errors import DataError, ParamsError

Prepared = Callable[..., ObjectStore]


def write_h5(path: Path, num: int, seed: int, *, points: int = 64) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    data = (rng.normal(size=(num, points, 3)) * rng.uniform(0.2, 3, size=(num, 1, 1))).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["label"] = (np.arange(num) * 4 % 15).astype(np.int32)
        file["mask"] = np.zeros((num, points), dtype=np.int32)
    return data


def write_official(root: Path) -> dict[str, dict[str, np.ndarray]]:
    written: dict[str, dict[str, np.ndarray]] = {}
    for i, (variant, (folder, end)) in enumerate(FILES.items()):
        written[variant] = {
            split: write_h5(root / folder / f"{prefix}_{end}.h5", num, 10 * i + num)
            for split, prefix, num in (("train", "training", 6), ("test", "test", 4))
        }
    return written


@pytest.mark.parametrize("variant", FILES)
def test_each_variant_is_its_own_files_and_size_is_kept_to_the_last_bit(
    tmp_path: Path, prepared: Prepared, variant: str
) -> None:
    written = write_official(tmp_path / "h5_files")[variant]
    store = prepared("scanobjectnn", tmp_path, variant=variant)
    assert store.info.settings["frame"] == "source"
    assert store.info.settings["loader_transform"] == "none"
    for split, data in written.items():
        rows = store.rows(split)
        assert len(rows) == len(data)
        for row in rows:
            original = data[int(str(store.paths[row]).rpartition("#")[2])]
            coord = store.coords(np.array([row]))[0]
            back = np.stack([coord[:, 0], coord[:, 2], -coord[:, 1]], axis=1)  # from +Z up to the file's +Y up
            np.testing.assert_array_equal(
                np.sort(back.view("f4,f4,f4").ravel()), np.sort(original.view("f4,f4,f4").ravel())
            )


def test_labels_are_those_of_the_files_in_the_official_order(tmp_path: Path, prepared: Prepared) -> None:
    write_official(tmp_path)
    store = prepared("scanobjectnn", tmp_path, variant="obj_bg")
    assert store.info.classes == CLASSES
    assert tuple(sorted(CLASSES)) != CLASSES
    for row in range(len(store)):
        index = int(str(store.paths[row]).rpartition("#")[2])
        assert store.labels[row] == index * 4 % 15
        assert store.categories[row] == CLASSES[index * 4 % 15]


def test_points_start_with_the_first_of_the_file_and_are_farthest_first(tmp_path: Path, prepared: Prepared) -> None:
    data = write_official(tmp_path)["obj_only"]["test"]
    store = prepared("scanobjectnn", tmp_path, variant="obj_only")
    row = next(r for r in store.rows("test") if str(store.paths[r]).endswith("#0"))
    x, y, z = data[0][0]
    coord = store.coords(np.array([row]))[0]
    np.testing.assert_array_equal(coord[0], [x, -z, y])
    farthest = np.linalg.norm(data[0] - data[0][0], axis=1).max()
    assert np.linalg.norm(coord[1] - coord[0]) == pytest.approx(farthest, rel=1e-6)


def test_the_real_test_file_is_read_but_a_folder_without_training_file_is_refused(derived: Path) -> None:
    with pytest.raises(DataError, match=r"training_objectdataset\.h5 is not in it") as caught:
        find(derived / "scanobjectnn_layout", "obj_bg")
    assert "signed form" in str(caught.value)
    assert "hkust-vgd.github.io" in str(caught.value)


def test_real_objects_of_the_test_file_are_listed(derived: Path, tmp_path: Path) -> None:
    real = derived / "scanobjectnn_layout/main_split/test_objectdataset.h5"
    (tmp_path / "main_split").mkdir()
    for name in ("training", "test"):
        (tmp_path / f"main_split/{name}_objectdataset.h5").write_bytes(real.read_bytes())
    found = find(tmp_path, "obj_bg")
    with h5py.File(real, "r") as file:
        labels = np.asarray(file["label"])
    expected = [CLASSES[label] for label in labels]
    assert [o.category for o in found.objects if o.split == "test"] == expected
    assert "these have 30 and 30" in found.notes[0]


def test_an_unknown_variant_names_the_known_ones(tmp_path: Path, prepared: Prepared) -> None:
    write_official(tmp_path)
    with pytest.raises(ParamsError, match="obj_bg, obj_only, pb_t50_rs; got 'hardest'"):
        prepared("scanobjectnn", tmp_path, variant="hardest")
    with pytest.raises(ParamsError, match="got none"):
        prepared("scanobjectnn", tmp_path)


def test_labels_out_of_range_and_files_that_are_no_hdf5_are_explained(tmp_path: Path) -> None:
    write_official(tmp_path)
    path = tmp_path / "main_split/test_objectdataset.h5"
    with h5py.File(path, "a") as file:
        file["label"][0] = 15
    with pytest.raises(DataError, match="labels other than 0 to 14"):
        find(tmp_path, "obj_bg")
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"test_objectdataset\.h5 cannot be read"):
        find(tmp_path, "obj_bg")
