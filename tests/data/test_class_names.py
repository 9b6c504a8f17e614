from pathlib import Path

from pointloom.data.class_names import class_phrases
from tests.captioners.stores import Thing, write_things


def test_a_name_of_several_words_is_a_list_where_its_words_occur_alone(tmp_path: Path) -> None:
    things = [
        *(Thing(category="desk_table", name=name) for name in ("OfficeDesk", "table_round")),
        *(Thing(category="night_stand", name=name) for name in ("night_stand", "NightStandOld")),
        *(Thing(category="cup_mug", name=name) for name in ("mug", "mug_big")),
        *(Thing(category="PictureFrame", name=name) for name in ("a", "b")),
        Thing(category="chair", name="chair"),
        Thing(category=None, name="night"),
    ]
    assert class_phrases(write_things(tmp_path / "s", things)) == {
        "desk_table": "desk or table",
        "night_stand": "night stand",
        "cup_mug": "cup mug",
        "PictureFrame": "picture frame",
        "chair": "chair",
    }


def test_names_of_test_objects_decide_nothing(tmp_path: Path) -> None:
    things = [
        Thing(category="desk_table", name="desk"),
        Thing(category="desk_table", name="table", split="test"),
        Thing(category="lamp", split="test"),
    ]
    assert class_phrases(write_things(tmp_path / "s", things)) == {"desk_table": "desk table", "lamp": "lamp"}
