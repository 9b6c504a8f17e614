"""Stage prepare on scenes: generated rooms, and the same real rooms in their three layouts."""

import json
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.scene_store import SceneStore
from pointloom.errors import DataError, ParamsError
from pointloom.scan_features import ScanOptions, _read
from pointloom.stages.prepare import PrepareParams, prepare, prepare_store
from pointloom.stages.scene_training import store_kind

BASE = {"num_objects": 0, "unlabelled_synthetic": 0, "num_points": 1500, "seed": 3, "test_fraction": 0.25, "up": "auto",
        "max_failure_ratio": 0}  # fmt: skip


def store(folder: Path, files: Path, /, **changes: object) -> SceneStore:
    params = PrepareParams.model_validate(BASE | changes)
    prepare_store(params, source=files, dataset=folder, state=folder.parent / "state")
    return SceneStore(folder)


def test_generated_rooms_have_splits_labels_boxes_and_sentences(tmp_path: Path) -> None:
    wanted = {"source": "synthetic_rooms", "num_objects": 3.0, "unlabelled_synthetic": 1}  # KFP makes floats of numbers
    rooms = store(tmp_path / "a", tmp_path, **wanted)
    assert [len(rooms.rows(split)) for split in ("train", "test", "pretrain")] == [2, 1, 1]
    assert (rooms.num_points == 1500).all()
    for row in (*rooms.rows("train"), *rooms.rows("test")):
        room = rooms.scene(int(row))
        assert room.boxes is not None
        assert len(room.boxes.label) > 0
        assert (room.segment >= 0).mean() > 0.5
        assert {sentence.instance for sentence in room.sentences} <= set(room.boxes.instance.tolist())
    bare = rooms.scene(int(rooms.rows("pretrain")[0]))
    assert (bare.segment == -1).all()
    assert (bare.boxes, bare.sentences) == (None, ())
    assert rooms.info.aligned
    again = store(tmp_path / "b", tmp_path, **wanted | {"num_objects": 1, "unlabelled_synthetic": 0})
    np.testing.assert_array_equal(again.scene(0).coord, rooms.scene(0).coord)
    turned = store(tmp_path / "c", tmp_path, source="synthetic_rooms", num_objects=1, scenes={"aligned": False})
    assert not turned.info.aligned


def test_rooms_are_made_as_the_parameters_say_and_as_always_where_they_say_nothing(tmp_path: Path) -> None:
    wanted = {"source": "synthetic_rooms", "num_objects": 3}
    plain = store(tmp_path / "a", tmp_path, **wanted)
    assert "rooms" not in plain.info.settings["scenes"]
    same = store(tmp_path / "b", tmp_path, **wanted, scenes={"rooms": {}})
    choice = {"kinds": ["bathroom"], "clutter": False, "ceiling": True, "sentences_per_object": 1}
    other = store(tmp_path / "c", tmp_path, **wanted, scenes={"rooms": choice})
    for row in range(3):
        np.testing.assert_array_equal(same.scene(row).coord, plain.scene(row).coord)
        toilets = [rooms.scene(row).segment == rooms.info.classes.index("toilet") for rooms in (plain, other)]
        assert [bool(each.any()) for each in toilets] == [False, True]
        sentences = [sentence.instance for sentence in other.scene(row).sentences]
        assert len(sentences) == len(set(sentences)) > 0
        above = [(room.segment[room.coord[:, 2] > 2] == -1).any() for room in (plain.scene(row), other.scene(row))]
        assert above == [False, True]  # a ceiling, which has no class
    assert other.info.settings["scenes"]["rooms"]["kinds"] == ["bathroom"]
    params = PrepareParams.model_validate(BASE | wanted | {"scenes": {"aligned": True}})
    assert "rooms" not in params.model_dump()["scenes"]


def test_rooms_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="num_objects and unlabelled_synthetic are 0"):
        store(tmp_path / "a", tmp_path, source="synthetic_rooms")
    with pytest.raises(ParamsError, match="synthetic_rooms has no variants, got 'raw'"):
        store(tmp_path / "a", tmp_path, source="synthetic_rooms", num_objects=1, variant="raw")
    with pytest.raises(ParamsError, match="synthetic_rooms is in metres"):
        store(tmp_path / "a", tmp_path, source="synthetic_rooms", num_objects=1, scenes={"unit": "mm"})
    with pytest.raises(ParamsError, match="only synthetic_rooms adds generated rooms"):
        store(tmp_path / "a", tmp_path, source="s3dis", variant="raw", unlabelled_synthetic=1)
    with pytest.raises(ParamsError, match=r"prepare\.scenes\.rooms: kinds of rooms: got \['attic'\], choose among"):
        store(tmp_path / "a", tmp_path, source="synthetic_rooms", num_objects=1, scenes={"rooms": {"kinds": ["attic"]}})
    with pytest.raises(ParamsError, match="only synthetic_rooms makes rooms, source is s3dis"):
        store(tmp_path / "a", tmp_path, source="s3dis", variant="raw", scenes={"rooms": {}})
    with pytest.raises(ParamsError, match="train_list and test_list belong together"):
        store(tmp_path / "a", tmp_path, source="synthetic_rooms", num_objects=1, train_list="train.txt")


def test_real_rooms_run_in_their_three_layouts(shared: Path, tmp_path: Path) -> None:
    worlds = shared / "data/scenes/aws_worlds"
    lists = {"train_list": "splits/house_train.txt", "test_list": "splits/house_val.txt"}
    blocks = store(tmp_path / "blocks", worlds, source="pointcept", variant="scannet20", **lists)
    rooms = store(tmp_path / "rooms", worlds / "s3dis_layout", source="s3dis", variant="raw")
    for name in ("small-house.ply", "bookstore.ply"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / name).symlink_to(worlds / name)
    scans = store(tmp_path / "scans", tmp_path / "plain", source="scans")
    assert (len(blocks.rows("train")), len(blocks.rows("test"))) == (11, 4)
    assert len(rooms) == len(scans) == 2
    house = np.concatenate([blocks.scene(row).coord for row in range(15)])
    for whole in (rooms.scene(rooms.groups.tolist().index("Area_1")), scans.scene(1)):
        np.testing.assert_allclose(np.ptp(whole.coord, axis=0), np.ptp(house, axis=0), atol=0.1)


def test_scans_without_normals_get_those_of_their_surfaces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    floor = np.column_stack([rng.random((400, 2)) * 2, np.zeros(400)])
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "floor.npy", floor)
    np.save(tmp_path / "in" / "normals.npy", np.hstack([floor, np.tile([0.6, 0.0, 0.8], (400, 1))]))
    scans = store(tmp_path / "out", tmp_path / "in", source="scans")
    np.testing.assert_allclose(scans.scene(0).normal, np.tile([0, 0, 1], (400, 1)), atol=1e-3)
    np.testing.assert_allclose(scans.scene(1).normal, np.tile([0.6, 0, 0.8], (400, 1)), atol=1e-3)
    assert "1 scenes came without normals, which were estimated from the nearest points." in scans.info.notes
    assert scans.info.settings["normals"] == "estimated where missing"


def test_prepared_normals_are_those_that_features_of_a_scan_are_computed_with(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "scan.npy", np.random.default_rng(0).random((500, 3)).astype(np.float32))
    stored = store(tmp_path / "out", tmp_path / "in", source="scans").scene(0)
    read = _read(tmp_path / "in" / "scan.npy", ScanOptions())
    np.testing.assert_array_equal(stored.coord, read.coord)
    assert read.normal is not None
    np.testing.assert_array_equal(stored.normal, read.normal.astype(np.float16).astype(np.float32))


def test_lists_that_divide_a_place_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for room in ("hall_1", "hall_2", "office_1"):
        folder = tmp_path / "in" / ("Area_1" if room != "office_1" else "Area_2") / room
        folder.mkdir(parents=True)
        for name, array in (("coord", np.random.default_rng(0).random((50, 3))), ("segment", np.zeros(50))):
            np.save(folder / f"{name}.npy", array)
    lists = {"train_list": "train.txt", "test_list": "test.txt"}
    (tmp_path / "in" / "test.txt").write_text("Area_1_hall_2\n")
    told = "The lists divide 1 places (rooms scanned several times, buildings, areas) such as Area_1 between"
    for train, expected in (("Area_1_hall_1\nArea_2_office_1\n", True), ("Area_2_office_1\n", False)):
        (tmp_path / "in" / "train.txt").write_text(train)
        rooms = store(tmp_path / "out", tmp_path / "in", source="s3dis", variant="pointcept", **lists)
        assert any(note.startswith(told) for note in rooms.info.notes) is expected
    assert told in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "scenes", "format": 1}'])
def test_damaged_description_of_a_store_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json: damaged .*run `pointloom prepare` again"):
        SceneStore(tmp_path) if store_kind(tmp_path) == "scenes" else None


def test_the_stage_reports_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = PrepareParams.model_validate(BASE | {"source": "synthetic_rooms", "num_objects": 2})
    prepare(params, source=tmp_path, dataset=tmp_path / "scenes", metrics=tmp_path / "m.json", state=tmp_path / "state")
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert (metrics["scenes"], metrics["points"], metrics["classes"], metrics["quarantined"]) == (2, 3000, 20, 0)
