from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.scene_store import SceneStore
from pointloom.datasets.s3dis import BOX_CLASSES, CLASSES, NUM_ROOMS, write_npy
from pointloom.errors import DataError, ParamsError

Prepared = Callable[..., SceneStore]


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


def test_real_annotations_become_rooms_with_every_point_labelled(shared: Path, prepared_scenes: Prepared) -> None:
    root = shared / "data/scenes/aws_worlds/s3dis_layout"
    store = prepared_scenes("s3dis", root, variant="raw")
    assert len(store) == len(list(root.glob("Area_*/*/Annotations")))
    for row in range(len(store)):
        room = store.scene(row)
        folder = root / room.group / room.name.removeprefix(f"{room.group}_")
        pieces = {path: sum(1 for _ in path.open()) for path in (folder / "Annotations").glob("*.txt")}
        assert len(room.coord) == store.num_points[row] == sum(pieces.values())
        for label, name in enumerate(CLASSES[:-1]):
            count = sum(n for path, n in pieces.items() if path.stem.rpartition("_")[0] == name)
            assert (room.segment == label).sum() == count
        assert sorted(np.bincount(room.instance)) == sorted(pieces.values())
        np.testing.assert_allclose(room.coord.min(axis=0), 0, atol=1e-6)
        assert room.boxes is not None
        furniture = [path for path in pieces if path.stem.rpartition("_")[0] in BOX_CLASSES]
        assert len(room.boxes.label) == len(furniture) > 0
    assert store.groups.tolist() == ["Area_1", "Area_2"]
    assert store.info.aligned
    assert any("has 272 rooms" in note for note in store.info.notes)


def test_raw_and_npy_give_the_same_rooms(tmp_path: Path, prepared_scenes: Prepared) -> None:
    write_room(
        tmp_path / "raw/Area_5/office_1", {"chair_1": "1 2 3 255 0 9\n2 2 4 1 2 3\n", "stairs_1": "1 5 3 7 8 9\n"}
    )
    store = prepared_scenes("s3dis", tmp_path / "raw", variant="raw")
    raw = store.scene(0)
    assert (raw.name, raw.split) == ("Area_5_office_1", "test")
    assert raw.coord.tolist() == [[0, 0, 0], [1, 0, 1], [0, 3, 0]]
    assert raw.segment.tolist() == [8, 8, 12]  # stairs count as clutter
    assert raw.instance.tolist() == [0, 0, 1]
    assert raw.color is not None
    assert raw.color[0].tolist() == [255, 0, 9]
    (tmp_path / "npy/stanford_indoor3d").mkdir(parents=True)
    table = np.column_stack([raw.coord + 5, raw.color, raw.segment])
    np.save(tmp_path / "npy/stanford_indoor3d/Area_5_office_1.npy", table)
    npy = prepared_scenes("s3dis", tmp_path / "npy", variant="npy").scene(0)
    for name in ("coord", "color", "segment"):
        np.testing.assert_array_equal(getattr(npy, name), getattr(raw, name))
    assert npy.instance.tolist() == [-1, -1, -1]
    assert npy.boxes is None
    assert write_npy(tmp_path / "again", [raw]) == 1
    again = prepared_scenes("s3dis", tmp_path / "again", variant="npy").scene(0)
    for name in ("coord", "color", "segment"):
        np.testing.assert_array_equal(getattr(again, name), getattr(raw, name))
    for change in ({"color": None}, {"segment": np.full(3, -1, np.int16)}, {"name": "hall"}):
        with pytest.raises(DataError, match="layout s3dis_npy needs colours, a class"):
            write_npy(tmp_path / "none", [replace(raw, **change)])


@pytest.mark.parametrize(
    ("line", "coord", "color"),
    [
        ("22.350 6.692 3.048 185\x10187 182", [22.35, 6.692, 3.048], [185, 187, 182]),  # Area_5/hallway_6
        ("1 2 4 103.0\x100000 105.0 102.0", [1, 2, 4], [103, 105, 102]),  # Area_5/office_19 of the other version
        ("19.302 -9.1\x160 1.785 146 137 106", [19.302, -9.1, 1.785], [146, 137, 106]),  # Area_3/hallway_2
    ],
)
def test_stray_control_characters_stand_between_numbers_or_inside_of_one(
    tmp_path: Path, prepared_scenes: Prepared, line: str, coord: list[float], color: list[int]
) -> None:
    write_room(tmp_path / "Area_5/hallway_6", {"ceiling_1": f"0 -10 0 4 5 6\n{line}\n"})
    room = prepared_scenes("s3dis", tmp_path, variant="raw").scene(0)
    np.testing.assert_allclose(room.coord[1] - room.coord[0], np.array(coord) - [0, -10, 0], atol=1e-5)
    assert room.color is not None
    assert room.color[1].tolist() == color


def test_the_version_that_is_not_aligned_is_not_called_so(tmp_path: Path, prepared_scenes: Prepared) -> None:
    text = "1 2 3 4 5 6\n2 2 3 4 5 6\n"
    for version in ("Stanford3dDataset_v1.2_Aligned_Version", "Stanford3dDataset_v1.2"):
        write_room(tmp_path / version / "Area_1/office_1", {"chair_1": text})
    for folder, choice, expected in (
        ("Stanford3dDataset_v1.2_Aligned_Version", {}, True),
        ("Stanford3dDataset_v1.2", {}, False),
        ("Stanford3dDataset_v1.2_Aligned_Version", {"scenes": {"aligned": False}}, False),
    ):
        assert prepared_scenes("s3dis", tmp_path / folder, variant="raw", **choice).info.aligned is expected
    with pytest.raises(ParamsError, match="is the version that is not aligned"):
        prepared_scenes("s3dis", tmp_path / "Stanford3dDataset_v1.2", variant="raw", scenes={"aligned": True})


@pytest.mark.parametrize("text", ["1 2 3 4 5 six\n", "1 2 3\n", "1 2 3 4 5 6\n1 2 3 4 5\n", "nan 2 3 4 5 6\n"])
def test_a_damaged_room_names_its_file(tmp_path: Path, prepared_scenes: Prepared, text: str) -> None:
    write_room(tmp_path / "Area_1/office_1", {"chair_1": text})
    write_room(tmp_path / "Area_1/office_2", {"chair_1": "1 2 3 4 5 6\n2 2 3 4 5 6\n"})
    with pytest.raises(DataError, match="1 of 2 inputs cannot be used"):
        prepared_scenes("s3dis", tmp_path, variant="raw")
    store = prepared_scenes("s3dis", tmp_path, variant="raw", max_failure_ratio=0.5)
    (failure,) = store.failures()
    assert failure["path"] == "Area_1/office_1"
    expected = "not finite" if "nan" in text else r"six numbers per line"
    assert expected in failure["detail"]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (np.zeros((3, 6)), "expected (N, 7)"),
        (np.full((3, 7), 13.0), "labels must be 0 to 12"),
        (np.zeros((0, 7)), "no points"),
        (b"\x93NUMPY", "cannot be read"),
    ],
)
def test_bad_npy_rooms_are_explained(
    tmp_path: Path, prepared_scenes: Prepared, content: np.ndarray | bytes, detail: str
) -> None:
    np.save(tmp_path / "Area_1_office_1.npy", np.eye(7)[:3])
    path = tmp_path / "Area_1_office_2.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    (failure,) = prepared_scenes("s3dis", tmp_path, variant="npy", max_failure_ratio=0.5).failures()
    assert detail in failure["detail"]


def test_another_folder_and_variant_are_explained(tmp_path: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(DataError, match="is not in it") as caught:
        prepared_scenes("s3dis", tmp_path, variant="raw")
    assert "Annotations/beam_1.txt" in str(caught.value)
    with pytest.raises(ParamsError, match="raw, npy, pointcept; got none"):
        prepared_scenes("s3dis", tmp_path)
    with pytest.raises(ParamsError, match="VoteNet's export is aligned with the walls and cannot be had otherwise"):
        prepared_scenes("scannet_votenet", tmp_path, variant="classes20", scenes={"aligned": False})
    with pytest.raises(ParamsError, match=r"prepare\.up: S3DIS has \+Z up"):
        prepared_scenes("s3dis", tmp_path, variant="raw", up="y", scenes={"aligned": True})
    with pytest.raises(ParamsError, match=r"prepare\.scenes: source folder has objects, not scenes"):
        prepared_scenes("folder", tmp_path, scenes={"aligned": True})
