import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.quarantine import RejectedError
from pointloom.data.records import NO_PART
from pointloom.data.shards import ObjectStore
from pointloom.datasets import shapenetpart
from pointloom.datasets.shapenetpart import PART_COUNTS, find, load, part_labels
from pointloom.errors import DataError

Prepared = Callable[..., ObjectStore]


def write_official(root: Path) -> Path:
    """Write two categories of the official data set, with a shape in every list and one in none."""
    root.mkdir(parents=True)
    (root / "synsetoffset2category.txt").write_text("".join(f"{c}\t{i:08d}\n" for i, c in enumerate(PART_COUNTS)))
    (root / "train_test_split").mkdir()
    rng = np.random.default_rng(0)
    shapes = {"train": ("00000000", 0, 4), "val": ("00000001", 4, 2), "test": ("00000015", 47, 3)}
    for split, (synset, first, count) in shapes.items():
        names = [f"{split}{i}" for i in range(2)]
        for i, name in enumerate([*names, f"{split}-unlisted"]):
            rows = np.column_stack([rng.normal(size=(40 + i, 6)), first + np.arange(40 + i) % count])
            (root / synset).mkdir(exist_ok=True)
            np.savetxt(root / synset / f"{name}.txt", rows, fmt="%.6f")
        entries = [f"shape_data/{synset}/{name}" for name in names]
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(entries))
    return root


def test_fifty_parts_are_counted_on_through_sixteen_categories(tmp_path: Path) -> None:
    labels = part_labels(write_official(tmp_path / "part"))
    assert len(labels) == 16
    assert [label for part in labels.values() for label in part] == list(range(50))
    assert labels["Motorbike"] == [30, 31, 32, 33, 34, 35]  # the published table
    assert labels["Table"] == [47, 48, 49]


def test_official_lists_decide_the_split_and_validation_shapes_belong_to_train_in_trainval(tmp_path: Path) -> None:
    root = write_official(tmp_path / "part")
    for variant, expected in (("trainval", 4), ("train", 2)):
        found = find(root, variant)
        splits = [o.split for o in found.objects]
        assert (splits.count("train"), splits.count("test")) == (expected, 2)
        assert not [o for o in found.objects if "unlisted" in o.path]
        assert found.classes == tuple(PART_COUNTS)


def test_the_store_gives_back_every_point_of_every_shape_with_its_official_label(
    tmp_path: Path, prepared: Prepared
) -> None:
    write_official(tmp_path / shapenetpart.ROOT)
    store = prepared("shapenetpart", tmp_path, variant="trainval", num_points=64)
    assert store.info.classes == tuple(PART_COUNTS)
    assert store.info.settings["loader_transform"] == "unit_sphere_before_sampling"
    offsets = np.cumsum([0] + [len(store.info.parts[c]) for c in store.info.classes])
    for row in range(len(store)):
        table = np.loadtxt(tmp_path / str(store.paths[row]))
        segment = store.segments(np.array([row]))[0]
        valid = segment != NO_PART
        assert valid.sum() == len(table)
        assert not valid[len(table) :].any()
        transform = np.array(store.index["transform"][row]).reshape(4, 4)
        expected = table[:, :3] @ transform[:3, :3].T + transform[:3, 3]
        coord = store.coords(np.array([row]))[0]
        nearest = np.linalg.norm(coord[:, None] - expected[None], axis=-1)
        assert nearest.min(axis=1).max() < 1e-5
        origin = nearest.argmin(axis=1)
        assert sorted(origin[valid]) == list(range(len(table)))
        label = segment[valid] + offsets[store.labels[row]]
        np.testing.assert_array_equal(label, table[origin[valid], 6].astype(int))


def test_real_shapes_in_this_layout_are_prepared_with_their_part_names(derived: Path, prepared: Prepared) -> None:
    root = derived / "partseg_lowpoly"
    found = find(root, "trainval")
    assert len(found.objects) == len(list(root.glob("9*/*.txt"))) == 80
    assert found.parts["sword"] == ["handle", "blade"]
    store = prepared("shapenetpart", root, variant="trainval", num_points=256)
    assert len(store) == 80
    assert store.info.parts["person"] == ["skin", "top", "trousers", "shoes", "hair"]
    listed = json.loads((root / "train_test_split/shuffled_test_file_list.json").read_text())
    assert {Path(p).stem for p in store.paths[store.rows("test")]} == {entry.split("/")[-1] for entry in listed}
    rows = np.arange(len(store))
    radius = np.linalg.norm(store.coords(rows), axis=-1).max(axis=1)
    np.testing.assert_allclose(radius, 1, atol=0.02)
    for row in rows:
        names = store.info.parts[str(store.categories[row])]
        assert store.segments(np.array([row])).max() < len(names)


def test_clouds_with_more_points_than_the_store_say_so(derived: Path, prepared: Prepared) -> None:
    store = prepared("shapenetpart", derived / "partseg_lowpoly", variant="train", num_points=64)
    assert store.info.counts["points_left_out"] == len(store)


def test_another_folder_gets_the_tree_the_source_and_the_licence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find(tmp_path, "trainval")
    message = str(caught.value)
    assert "synsetoffset2category.txt is not in it" in message
    assert "02691156/" in message
    assert "https://shapenet.cs.stanford.edu/media/" in message
    assert "ShapeNet terms of use" in message
    assert "pointloom datasets get shapenetpart" in message


def test_missing_list_and_unknown_category_are_named(tmp_path: Path) -> None:
    root = write_official(tmp_path / "part")
    (root / "synsetoffset2category.txt").write_text("Airplane\t00000000\nUnicorn\t00000001\n")
    with pytest.raises(DataError, match="unknown categories Unicorn"):
        find(root, "trainval")
    (root / "train_test_split/shuffled_val_file_list.json").unlink()
    with pytest.raises(DataError, match=r"shuffled_val_file_list\.json is not in it"):
        find(root, "trainval")


@pytest.mark.parametrize(
    ("text", "detail"),
    [("0 0 0 0 0 1\n", "got 6"), ("0 0 0 0 0 1 9\n", "part labels of Airplane are 0 to 3"), ("0 0 x\n", "convert")],
)
def test_a_damaged_shape_is_refused(tmp_path: Path, text: str, detail: str) -> None:
    root = write_official(tmp_path / "part")
    source = next(o for o in find(root, "trainval").objects if o.name == "train0")
    (root / source.path).write_text(text)
    with pytest.raises(RejectedError, match=detail):
        load(root, source)


def test_an_axis_turned_to_z_is_only_turned(tmp_path: Path, prepared: Prepared) -> None:
    write_official(tmp_path / shapenetpart.ROOT)
    store = prepared("shapenetpart", tmp_path, variant="trainval")
    transform = np.array(store.index["transform"][0]).reshape(4, 4)[:3, :3]
    np.testing.assert_allclose(
        transform / np.cbrt(np.linalg.det(transform)), [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-9
    )
    assert shapenetpart.DATASET.up == "y"
