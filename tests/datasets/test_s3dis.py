import json
from pathlib import Path

import numpy as np
import pytest

from pointloom.datasets.rooms import RoomStore
from pointloom.datasets.s3dis import CLASSES, NUM_ROOMS, find_rooms, read_rooms
from pointloom.errors import DataError, ParamsError
from pointloom.stages.prepare import PrepareParams, prepare_store

BASE = {"source": "s3dis", "num_objects": 0, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0}
BASE |= {"test_fraction": 0, "up": "auto", "max_failure_ratio": 0}


def prepared(tmp_path: Path, folder: Path, variant: str | None) -> RoomStore:
    params = PrepareParams.model_validate(BASE | {"variant": variant})
    prepare_store(params, source=folder, dataset=tmp_path / "store", state=tmp_path / "state")
    return RoomStore(tmp_path / "store")


def write_room(folder: Path, pieces: dict[str, str]) -> Path:
    (folder / "Annotations").mkdir(parents=True)
    for name, text in pieces.items():
        (folder / "Annotations" / f"{name}.txt").write_text(text)
    return folder


def test_classes_and_rooms_are_those_of_the_official_lists(shared: Path) -> None:
    lists = shared / "data/metadata/s3dis"
    assert tuple((lists / "class_names.txt").read_text().split()) == CLASSES
    rooms = (lists / "anno_paths.txt").read_text().split()
    for area, count in NUM_ROOMS.items():
        assert sum(room.startswith(f"Area_{area}/") for room in rooms) == count


def test_real_annotations_become_rooms_with_every_point_labelled(shared: Path, tmp_path: Path) -> None:
    root = shared / "data/scenes/aws_worlds/s3dis_layout"
    store = prepared(tmp_path, root, "raw")
    assert len(store) == len(list(root.glob("Area_*/*/Annotations")))
    for row in range(len(store)):
        room = store.room(row)
        folder = root / f"Area_{room.area}" / room.name.split("_", 2)[2]
        pieces = {path: sum(1 for _ in path.open()) for path in (folder / "Annotations").glob("*.txt")}
        assert len(room.coord) == store.num_points[row] == sum(pieces.values())
        for label, name in enumerate(CLASSES[:-1]):
            count = sum(n for path, n in pieces.items() if path.stem.rpartition("_")[0] == name)
            assert (room.label == label).sum() == count
        np.testing.assert_allclose(room.coord.min(axis=0), 0, atol=1e-6)
    assert set(store.areas[store.rows([1])]) == {1}
    assert any("has 272 rooms" in note for note in store.info.notes)


def test_raw_and_npy_give_the_same_rooms(tmp_path: Path) -> None:
    write_room(
        tmp_path / "raw/Area_5/office_1", {"chair_1": "1 2 3 255 0 9\n2 2 4 1 2 3\n", "stairs_1": "1 5 3 7 8 9\n"}
    )
    (raw,) = read_rooms(tmp_path / "raw", "raw")
    assert raw.name == "Area_5_office_1"
    assert raw.coord.tolist() == [[0, 0, 0], [1, 0, 1], [0, 3, 0]]
    assert raw.label.tolist() == [8, 8, 12]  # stairs count as clutter
    assert raw.color[0].tolist() == [255, 0, 9]
    (tmp_path / "npy/stanford_indoor3d").mkdir(parents=True)
    table = np.column_stack([raw.coord + 5, raw.color, raw.label])
    np.save(tmp_path / "npy/stanford_indoor3d/Area_5_office_1.npy", table)
    (npy,) = read_rooms(tmp_path / "npy", "npy")
    for name in ("coord", "color", "label"):
        np.testing.assert_array_equal(getattr(npy, name), getattr(raw, name))


def test_the_stray_control_character_of_the_official_data_counts_as_a_blank(tmp_path: Path) -> None:
    write_room(tmp_path / "Area_5/hallway_6", {"ceiling_1": "1 2 3 4 5 6\n1 2 3 185\x10187 9\n"})
    (room,) = read_rooms(tmp_path, "raw")
    assert room.color[1].tolist() == [185, 187, 9]


@pytest.mark.parametrize("text", ["1 2 3 4 5 six\n", "1 2 3\n", "1 2 3 4 5 6\n1 2 3 4 5\n"])
def test_a_damaged_line_names_its_file(tmp_path: Path, text: str) -> None:
    write_room(tmp_path / "Area_1/office_1", {"chair_1": text})
    with pytest.raises(DataError, match=r"chair_1\.txt.*six numbers per line"):
        list(read_rooms(tmp_path, "raw"))


def test_bad_npy_rooms_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "Area_1_office_1.npy"
    for content, message in (
        (np.zeros((3, 6)), r"expected \(N, 7\)"),
        (np.full((3, 7), 13.0), "labels must be 0 to 12"),
        (np.zeros((0, 7)), "no points"),
    ):
        np.save(path, content)
        with pytest.raises(DataError, match=message):
            list(read_rooms(tmp_path, "npy"))
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rooms(tmp_path, "npy"))


def test_another_folder_and_variant_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not in it") as caught:
        find_rooms(tmp_path, "raw")
    assert "Annotations/beam_1.txt" in str(caught.value)
    with pytest.raises(ParamsError, match="raw, npy; got None"):
        prepared(tmp_path, tmp_path, None)


def test_rooms_and_objects_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"format": 1, "kind": "objects"}))
    with pytest.raises(DataError, match="kind 'objects'"):
        RoomStore(tmp_path)
    with pytest.raises(DataError, match="no prepared rooms here"):
        RoomStore(tmp_path / "other")


def test_the_digest_follows_every_value(tmp_path: Path) -> None:
    digests = set()
    for i, text in enumerate(("1 2 3 4 5 6\n", "1 2 3 4 5 7\n")):
        write_room(tmp_path / f"{i}/Area_1/office_1", {"chair_1": text})
        digests.add(prepared(tmp_path / f"{i}", tmp_path / f"{i}", "raw").info.digest)
    assert len(digests) == 2
