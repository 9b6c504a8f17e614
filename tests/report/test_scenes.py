"""Scenes in the report: layers show what the arrays say, boxes are where they should be, nothing stays nothing."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.scene_store import SceneStore, write_scenes
from pointloom.data.synthetic_rooms import BOX_CLASSES as ROOM_BOXES
from pointloom.data.synthetic_rooms import ROOM_CLASSES, synthetic_scenes
from pointloom.report.album import PREDICTED_COLOR, Album
from pointloom.report.inputs import Records, ResultRecord, SceneInputs, load_scene_inputs
from pointloom.report.scene_build import build_scene_report
from pointloom.report.scene_clouds import (
    COLORS,
    HEAT,
    HIDDEN,
    LARGE,
    PREDICTED_BOX,
    RIGHT,
    TRUE_BOX,
    UNLABELLED,
    WRONG,
    Layer,
    SceneCloud,
    box_corners,
    class_colors,
    heat_colors,
    result_clouds,
    sample_clouds,
)
from pointloom.report.scene_published import scene_published_rows
from pointloom.report.scene_tables import scene_rows
from pointloom.report.scenes import draw_layer, scene_blocks, scene_entries
from pointloom.report.summary import Baseline
from tests.report.scene_fixtures import BOX_CLASSES, CLASSES, boxed, predicted, room_arrays, samples, scene_records
from tests.report.test_page import SETTINGS, Page


def layers_of(arrays: dict[str, np.ndarray]) -> list[dict[str, Layer]]:
    clouds = result_clouds(arrays, classes=CLASSES, box_classes=BOX_CLASSES)
    return [{layer.title.partition(" (")[0]: layer for layer in cloud.layers} for cloud in clouds]


def test_truth_and_prediction_come_first_and_have_the_colours_of_their_classes() -> None:
    arrays = predicted(room_arrays())
    first, second = layers_of(arrays)
    assert list(first) == list(second) == ["true classes", "predicted classes", "mistakes", "colours"]
    colors = [LARGE["wall"], LARGE["floor"], COLORS[0], COLORS[1]]
    for place, label in ((0, 2), (1, 3)):
        is_label = arrays["label"][400 * place : 400 * (place + 1)] == label
        shown = (first, second)[place]["true classes"].color[is_label]
        assert len(shown) > 50
        assert (shown == colors[label]).all()
    assert (first["predicted classes"].color[::5] == COLORS[1]).all()
    assert (first["true classes"].color[arrays["label"][:400] < 0] == UNLABELLED).all()
    assert first["true classes"].legend["chair"] == COLORS[0]


def test_mistakes_are_red_and_counted_among_labelled_points() -> None:
    arrays = predicted(room_arrays(scenes=1))
    (cloud,) = result_clouds(arrays, classes=CLASSES, box_classes=[])
    layer = cloud.layers[2]
    known = arrays["label"] >= 0
    wrong = known & (arrays["label"] != arrays["prediction"])
    assert (layer.color[wrong] == WRONG).all()
    assert (layer.color[known & ~wrong] == RIGHT).all()
    assert (layer.color[~known] == HIDDEN).all()
    assert layer.title == f"mistakes ({100 * wrong.sum() / known.sum():.0f} % of the labelled points)"


def test_boxes_go_to_their_scene_with_words_and_scores() -> None:
    first, second = layers_of(boxed(room_arrays()))
    assert list(first) == ["true boxes", "predicted boxes", "true and predicted boxes", "colours"]
    assert [word for _, _, word in first["true boxes"].boxes] == ["chair", "table"]
    assert first["predicted boxes"].boxes == ()
    ((corners, color, word),) = second["predicted boxes"].boxes
    assert (color, word) == (PREDICTED_BOX, "chair 0.75")
    assert corners.mean(axis=0) == pytest.approx([1.1, 1, 0.45])
    assert len(second["true and predicted boxes"].boxes) == 3


def test_of_many_predicted_boxes_the_best_are_shown() -> None:
    arrays = boxed(room_arrays())
    score = np.linspace(0.1, 0.9, 40, dtype="f4")
    many = {key: np.repeat(arrays[key], 40, axis=0) for key in arrays if key.startswith("box_")}
    _, second = layers_of(arrays | many | {"box_score": score})
    assert [word for _, _, word in second["predicted boxes"].boxes] == [f"chair {s:.2f}" for s in score[:-6:-1]]


def test_corners_of_a_box_are_those_computed_by_hand() -> None:
    quarter = box_corners(np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 2.0, 6.0]]), np.array([np.pi / 2]))[0]
    expected = [(2, 0), (2, 4), (0, 4), (0, 0)]  # the long side along y
    assert quarter[:4] == pytest.approx(np.array([(*place, 0) for place in expected]), abs=1e-9)
    assert quarter[4:] == pytest.approx(np.array([(*place, 6) for place in expected]), abs=1e-9)


def test_samples_show_visible_points_reconstruction_and_heat() -> None:
    first, second = sample_clouds(samples())
    titles = [layer.title for layer in second.layers]
    assert titles == ["visible points (50 %)", "reconstruction", "informative points", "colours"]
    visible, rebuilt, heat, plain = first.layers
    assert (visible.color[1::2] == HIDDEN).all()
    assert (visible.color[::2] == plain.color[::2]).all()
    assert rebuilt.coord is not None
    assert rebuilt.coord[:200] == pytest.approx(first.coord[::2])
    assert rebuilt.coord[200:] == pytest.approx(first.coord[1::2] + 0.05, abs=1e-5)
    assert (rebuilt.color[200:] == PREDICTED_COLOR).all()
    order = np.argsort(first.coord[:, 2])
    assert np.abs(heat.color[order[0]].astype(int) - HEAT[0]).max() < 12
    assert np.abs(heat.color[order[-1]].astype(int) - HEAT[-1]).max() < 12


def test_features_stand_beside_the_plain_colours() -> None:
    (cloud,) = sample_clouds(room_arrays(scenes=1) | {"pca": np.full((400, 3), 77, dtype="u1")})
    assert [layer.title for layer in cloud.layers] == ["features (first three principal components)", "colours"]


def test_heat_of_equal_values_is_one_colour() -> None:
    assert len(np.unique(heat_colors(np.ones(5)), axis=0)) == 1


def test_every_class_of_scannet_has_a_colour_of_its_own() -> None:
    assert len(set(class_colors(ROOM_CLASSES).values())) == 20


def test_pictures_show_boxes_and_leave_out_near_walls_and_what_is_high() -> None:
    near = [[4, 0.5, 1.2]] * 150 + [[2, 0.01, 1.2]] * 150
    coord = np.concatenate([room_arrays(2000, scenes=1)["coord"], [[2, 2, 2.9]] * 300, near]).astype("f4")
    color = np.full(coord.shape, 120, dtype="u1")
    color[-600:] = (255, 0, 255)
    corners = box_corners(np.array([[2.0, 2, 0.5]]), np.ones((1, 3)), np.zeros(1))[0]
    cloud = SceneCloud("a", coord, ())
    plain = draw_layer(cloud, Layer("plain", color), 96)
    with_box = draw_layer(cloud, Layer("boxes", color, boxes=((corners, TRUE_BOX, "chair"),)), 96)
    assert plain.shape == (96, 96, 3)
    assert (plain < 200).any(axis=2).mean() > 0.15
    assert not (plain == (255, 0, 255)).all(axis=2).any()
    assert (with_box == TRUE_BOX).all(axis=2).sum() > 40
    assert not (plain == TRUE_BOX).all(axis=2).any()


def test_records_without_scenes_show_nothing() -> None:
    empty = Records(encoders={}, finetune={}, probe={}, align={}, stages=[], problems=[])
    assert scene_blocks(empty, Album(folder=None, size=32)) == []
    assert scene_entries(empty) == []


def test_blocks_hold_a_picture_per_scene_and_a_legend() -> None:
    album = Album(folder=None, size=32)
    blocks = scene_blocks(scene_records(), album)
    assert [(block["name"], block["kind"], len(block["pictures"])) for block in blocks] == [
        ("detector", "finetune", 2), ("points", "finetune", 2), ("masked", "pretrain", 2), ("features", "pretrain", 1),
    ]  # fmt: skip
    assert blocks[1]["legend"]["chair"] == "#{:02x}{:02x}{:02x}".format(*COLORS[0])
    assert all(row["image"] in album.pictures for block in blocks for row in block["pictures"])


def test_viewer_entries_decode_to_the_points_and_lines() -> None:
    entries = scene_entries(scene_records())
    assert len(entries) == 7
    entry = next(entry for entry in entries if entry["group"] == "detector (finetune)")
    arrays = boxed(room_arrays())
    packed = np.frombuffer(base64.b64decode(entry["coord"]), dtype="<i2").reshape(-1, 3) * entry["scale"]
    middle = (arrays["coord"][:400].min(axis=0) + arrays["coord"][:400].max(axis=0)) / 2
    assert packed + middle == pytest.approx(arrays["coord"][:400], abs=2e-4)
    for layer in entry["layers"]:
        assert len(base64.b64decode(layer["color"])) == 3 * 400
    (line,) = entry["layers"][0]["lines"]
    assert line["words"] == ["chair", "table"]
    ends = [point for point in line["points"] if point is not None]
    assert np.ptp(np.array(ends[:16]), axis=0) == pytest.approx([0.5, 0.5, 0.9], abs=2e-3)
    assert json.loads(json.dumps(entries)) == entries


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scenes")
    rooms = synthetic_scenes(2, seed=0, num_points=256)
    write_scenes(
        root / "data", rooms, classes=ROOM_CLASSES, box_classes=ROOM_BOXES, source="synthetic_rooms", settings={}
    )
    folder = root / "results" / "finetune" / "points"
    folder.mkdir(parents=True)
    card = {"task": "scene_segmentation", "data": {"classes": CLASSES}, "encoder": {"builder": "pt", "method": "mae"}}
    runs = [{"seed": seed, "miou": 40.0 + seed, "macc": 50.0, "oa": 70.0} for seed in range(2)]
    (folder / "result.json").write_text(json.dumps(card | {"runs": runs}))
    np.savez(folder / "scenes.npz", **predicted(room_arrays()))
    model = root / "models" / "masked"
    model.mkdir(parents=True)
    (model / "encoder.json").write_text(json.dumps({"method": "mm3dscene"}))
    np.savez(model / "scene_samples.npz", **samples())
    places = {"dataset": root / "data", "models": root / "models", "results": root / "results", "runs": root / "runs"}
    return places


def written(inputs: SceneInputs, folder: Path) -> tuple[dict[str, Any], str]:
    folder.mkdir()
    content = build_scene_report(inputs, folder, SETTINGS)
    return content, (folder / "report.html").read_text(encoding="utf-8")


def test_report_on_scenes_holds_pictures_viewer_and_anchors(paths: dict[str, Path], tmp_path: Path) -> None:
    content, html = written(load_scene_inputs(**paths), tmp_path / "report")
    page = Page(html)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert sum(address.startswith("data:image/png") for address in page.addresses) == 4
    assert all(f'id="{address[1:]}"' in html for address in page.addresses if address.startswith("#"))
    found = re.search(r'id="scene-data">(.*?)</script>', html, re.S)
    assert found
    assert len(json.loads(found[1])) == 4
    assert "room <0>" in page.text
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for block in content["scenes"]:
        for row in block["pictures"]:
            assert (tmp_path / "report" / row["image"]).is_file()
            assert f"]({row['image']})" in markdown


def test_report_without_scene_files_has_no_such_section(paths: dict[str, Path], tmp_path: Path) -> None:
    inputs = load_scene_inputs(**paths | {"models": tmp_path / "none", "results": tmp_path / "none"})
    content, html = written(inputs, tmp_path / "report")
    assert content["scenes"] == []
    assert 'id="scenes"' not in html
    assert "scene-data" not in html


def test_published_values_stand_beside_results_on_the_same_data(paths: dict[str, Path], tmp_path: Path) -> None:
    inputs = load_scene_inputs(**paths)
    rows = scene_rows(inputs, tuned=Baseline("none", {}), frozen=Baseline("none", {}), bootstrap=SETTINGS.bootstrap)
    assert scene_published_rows(inputs, rows) == []  # nobody publishes values on generated rooms
    write_scenes(
        tmp_path / "scannet",
        synthetic_scenes(2, seed=0, num_points=256),
        classes=ROOM_CLASSES,
        box_classes=ROOM_BOXES,
        source="scannet",
        settings={"variant": "classes20"},
    )
    found = scene_published_rows(load_scene_inputs(**paths | {"dataset": tmp_path / "scannet"}), rows)
    assert [(row["metric"], row["ours"]["mean"]) for row in found] == [("mIoU", 40.5), ("mean class accuracy", 50.0)]
    values = {value["method"]: value["value"] for value in found[0]["published"]}
    assert values["MM-3DScene (Point Transformer)"] == 72.8
    assert values["HUNet, from scratch"] == 77.0
    assert "data: 2 scenes here" in found[0]["published"][0]["differs"]
    assert "runs: mean of 2 here, not stated published" in found[0]["published"][0]["differs"]
    for turned, box_classes, differs in (
        (False, ROOM_BOXES, []),
        (True, ROOM_BOXES, ["boxes: of scans that are not aligned with the walls here"]),
        (False, (*ROOM_BOXES, "lamp"), ["boxes: 19 classes here, 18 published"]),
    ):
        write_scenes(
            tmp_path / "scannet", synthetic_scenes(1, seed=0, num_points=256, turned=turned), classes=ROOM_CLASSES,
            box_classes=box_classes, source="scannet", settings={"variant": "classes20"},
        )  # fmt: skip
        boxes = [rows[0] | {"protocol": "detection", "values": {"ap25": {"mean": 50.0}}}]
        (row,) = scene_published_rows(load_scene_inputs(**paths | {"dataset": tmp_path / "scannet"}), boxes)
        assert [text for text in row["published"][0]["differs"] if text.startswith("boxes")] == differs


@pytest.mark.parametrize(
    ("source", "variant", "name", "shown"),
    [
        ("scannet_votenet", "classes20", "scene0000_00", True),
        ("pointcept", "scannet20", "scene0000_00", True),
        ("pointcept", "scannet20", "bookstore_1", False),
    ],
)
def test_scans_of_scannet_in_other_layouts_have_its_published_values(
    paths: dict[str, Path], tmp_path: Path, source: str, variant: str, name: str, shown: bool
) -> None:
    inputs = load_scene_inputs(**paths)
    rows = scene_rows(inputs, tuned=Baseline("none", {}), frozen=Baseline("none", {}), bootstrap=SETTINGS.bootstrap)
    write_scenes(
        tmp_path / "scans", [replace(room, name=name) for room in synthetic_scenes(1, seed=0, num_points=256)],
        classes=ROOM_CLASSES, box_classes=ROOM_BOXES, source=source, settings={"variant": variant},
    )  # fmt: skip
    rows += [rows[0] | {"protocol": "detection", "values": {"ap25": {"mean": 50.0}}}]
    found = scene_published_rows(load_scene_inputs(**paths | {"dataset": tmp_path / "scans"}), rows)
    assert [row["metric"] for row in found] == (["mIoU", "mean class accuracy", "AP25"] if shown else [])


@pytest.mark.parametrize(
    ("detector", "same"), [("votenet", 2), ("h3dnet", 2), ("3detr", 3), ("3detr_m", 3), (None, 10)]
)  # how many of the published detections on ScanNet have this detector; all where it is not known
def test_published_detections_by_another_detector_are_told_apart(
    paths: dict[str, Path], tmp_path: Path, detector: str | None, same: int
) -> None:
    write_scenes(
        tmp_path / "scans", synthetic_scenes(1, seed=0, num_points=256), classes=ROOM_CLASSES, box_classes=ROOM_BOXES,
        source="scannet", settings={"variant": "classes20"},
    )  # fmt: skip
    inputs = load_scene_inputs(**paths | {"dataset": tmp_path / "scans"})
    card = inputs.finetune["points"].card | {"protocol": {"detector": detector}}
    inputs = replace(inputs, finetune={"points": ResultRecord("points", card)})
    boxes = {"name": "points", "protocol": "detection", "fraction": 1, "seeds": 1, "values": {"ap25": {"mean": 50.0}}}
    (row,) = scene_published_rows(inputs, [boxes])
    told = [any(text.startswith("detector: ") for text in value["differs"]) for value in row["published"]]
    assert told.count(False) == same
    assert len(told) == 10


def test_boxes_of_a_store_without_classes_of_points_have_a_table_per_class(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    """As SUN RGB-D."""
    write_scenes(
        tmp_path / "frames", synthetic_scenes(1, seed=0, num_points=256), classes=ROOM_CLASSES,
        box_classes=ROOM_BOXES, source="sunrgbd", settings={},
    )  # fmt: skip
    inputs = load_scene_inputs(**paths)
    store = SceneStore(tmp_path / "frames")
    store.info = replace(store.info, classes=(), digest=inputs.store.info.digest)
    runs = [{"seed": 0, "ap25": 40.0, "ap50": 9.0, "ar25": 60.0, "ar50": 30.0, "classes": {"sofa": {"ap25": 12.5}}}]
    found = ResultRecord("votenet", {"task": "detection", "runs": runs})
    _, html = written(replace(inputs, store=store, finetune={"votenet": found}, encoders={}), tmp_path / "report")
    assert '<td class="key">sofa</td>' in html
    assert "| sofa | 12.5" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
