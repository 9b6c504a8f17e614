"""ScanNet's own files become scenes with the classes, instances, boxes and sentences that they describe."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointloom.data.scene_store import SceneStore
from pointloom.datasets.scannet import SPLIT_FILES, vertex_normals
from pointloom.datasets.scannet_labels import CLASSES_18, CLASSES_20, IDS_200, nyu40_ids, read_label_table
from pointloom.datasets.scannet_votenet import write_scans
from pointloom.datasets.scanrefer import read_sentences
from pointloom.errors import DataError, ParamsError
from tests.datasets.scannet_tree import SQUARES, write_tree

Prepared = Callable[..., SceneStore]
SCANS = {"scene0000_00": "train", "scene0001_00": "val", "scene0707_00": "test"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "ScanNet", SCANS)


def test_the_200_classes_are_in_the_published_table(shared: Path) -> None:
    labels = read_label_table(shared / "data/metadata/scannet/scannetv2-labels.combined.tsv").classes_200()
    assert len(set(IDS_200)) == len(set(labels.classes)) == 200
    assert (IDS_200[:10], IDS_200[-1]) == (tuple(range(1, 11)), 1191)
    assert [labels.classes.index(name) for name in ("wall", "chair", "floor", "mattress")] == [0, 1, 2, 199]
    assert len(labels.box_classes) == 198


def test_the_20_classes_are_those_of_the_official_list(shared: Path) -> None:
    lines = (shared / "data/metadata/scannet/classes_SemVoxLabel-nyu40id.txt").read_text().splitlines()
    expected = [line.split(maxsplit=1) for line in lines]
    assert nyu40_ids([name.strip() for _, name in expected]) == [int(i) for i, _ in expected] == list(CLASSES_20.ids)
    assert CLASSES_18.classes == CLASSES_20.classes[2:]
    with pytest.raises(DataError, match="'lamp' is not among ScanNet's 20 classes"):
        nyu40_ids(["lamp"])


def test_official_splits_have_their_official_sizes(shared: Path) -> None:
    folder = shared / "data/metadata/scannet"
    sizes = [len((folder / name).read_text().split()) for name in SPLIT_FILES.values()]
    assert sizes == [1201, 312, 100]


def test_scans_become_scenes(tree: Path, prepared_scenes: Prepared) -> None:
    store = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})
    assert dict(zip(store.names.tolist(), store.splits.tolist(), strict=True)) == {
        "scene0000_00": "train", "scene0001_00": "test", "scene0707_00": "pretrain",
    }  # fmt: skip
    assert store.info.classes == CLASSES_20.classes
    assert store.info.box_classes == CLASSES_18.classes
    assert store.scene(2).boxes is None  # no labels, no boxes
    scene = store.scene(0)
    numbers = np.repeat(np.arange(5), [4, 4, 8, 4, 4])
    words = ["floor", "wall", "chair", "picture", None]
    np.testing.assert_array_equal(scene.instance, numbers)
    expected = [-1 if words[i] is None else CLASSES_20.classes.index(words[i]) for i in numbers]
    np.testing.assert_array_equal(scene.segment, expected)
    np.testing.assert_array_equal(scene.color, np.arange(24)[:, None] + np.arange(3))
    np.testing.assert_array_equal(scene.coord[8:16].min(0), SQUARES["office chair"])
    assert scene.superpoint is not None
    assert scene.superpoint[:5].tolist() == [0, 0, 1, 1, 10]
    assert scene.normal is not None
    np.testing.assert_array_equal(scene.normal[:12], [[0, 0, 1]] * 12)  # the chair's upper corners have no face
    assert not scene.normal[12:16].any()
    assert not scene.aligned


def test_boxes_are_those_of_furniture_and_alignment_moves_them(tree: Path, prepared_scenes: Prepared) -> None:
    store = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True})
    assert store.info.aligned
    boxes = store.scene(0).boxes
    assert boxes is not None
    assert [CLASSES_18.classes[label] for label in boxes.label] == ["chair"]  # the picture is flat, it has no volume
    np.testing.assert_allclose(boxes.center, [[5 - 1.5, 6 + 1.5, -1 + 0.5]], atol=1e-6)
    np.testing.assert_allclose(boxes.size, [[1, 1, 1]], atol=1e-6)
    assert boxes.instance.tolist() == [2]
    assert store.names.tolist() == ["scene0000_00", "scene0001_00"]  # nobody knows how to turn scene0707_00
    assert "1 test scans have no axisAlignment and were left out: they cannot be aligned." in store.info.notes
    (tree / "scans/scene0000_00/scene0000_00.txt").write_text("axisAlignment = 1 0 0 0  0 0 -1 0  0 1 0 0  0 0 0 1")
    tilted = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True}).scene(0).normal
    assert tilted is not None
    np.testing.assert_array_equal(tilted[:8], [[0, -1, 0]] * 8)  # normals turn as well


def test_the_200_classes_tell_office_chairs_from_chairs(tree: Path, prepared_scenes: Prepared) -> None:
    store = prepared_scenes("scannet", tree, variant="classes200", scenes={"aligned": False})
    scene = store.scene(0)
    found = [store.info.classes[i] if i >= 0 else None for i in scene.segment[[0, 4, 8, 16, 20]]]
    assert found == ["floor", "wall", "office chair", "picture", "ceiling"]
    eighteen = prepared_scenes("scannet", tree, variant="classes18", scenes={"aligned": False}).scene(0).segment
    assert [CLASSES_18.classes[i] if i >= 0 else None for i in eighteen[[0, 4, 8]]] == [None, None, "chair"]


def test_normals_are_weighted_by_area() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=1)
    mesh.vertices *= [1, 2, 3]
    faces = np.asarray(mesh.faces)
    expected = np.zeros_like(mesh.vertices)
    for face, normal, area in zip(faces, mesh.face_normals, mesh.area_faces, strict=True):
        expected[face] += normal * area
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vertex_normals(np.asarray(mesh.vertices), faces), expected, atol=1e-9)


def test_aligned_or_not_must_be_said(tree: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(ParamsError, match=r"prepare\.scenes\.aligned: say true"):
        prepared_scenes("scannet", tree, variant="classes20")
    with pytest.raises(ParamsError, match=r"prepare\.scenes\.unit: ScanNet v2 is in metres"):
        prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True, "unit": "mm"})


def test_other_folders_show_the_expected_tree(tmp_path: Path, tree: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(DataError, match="is not in it") as caught:
        prepared_scenes("scannet", tmp_path / "ScanNet/scans", variant="classes20", scenes={"aligned": True})
    assert "scans/scene0000_00/scene0000_00.aggregation.json" in str(caught.value)
    (tree / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(DataError, match=r"scannetv2-labels\.combined\.tsv is not in it"):
        prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True})


def test_splits_must_be_known(tree: Path, prepared_scenes: Prepared) -> None:
    (tree / "scannetv2_train.txt").unlink()
    with pytest.raises(DataError, match="1 scenes such as scene0000_00 are in no split"):
        prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("_vh_clean_2.ply", "ply\nformat ascii", "unreadable"),
        ("_vh_clean_2.0.010000.segs.json", '{"segIndices": [1, 2]}', "wrong_labels"),
        (".aggregation.json", "{", "unreadable"),
        (".aggregation.json", '{"segGroups": [{"id": 1}]}', "unreadable"),
        (".aggregation.json", '{"segGroups": [{"id": 1, "label": ["bed"], "segments": ["all"]}]}', "unreadable"),
        (".aggregation.json", None, "missing_file"),
        (".txt", "axisAlignment = 1 2 3", "unreadable"),
        (".txt", "numDepthFrames = 7", "unreadable"),
        (".txt", "axisAlignment = " + "2 " * 16, "unreadable"),
    ],
)
def test_damaged_scans_are_quarantined(
    tree: Path, prepared_scenes: Prepared, file: str, content: str | None, reason: str
) -> None:
    path = tree / f"scans/scene0000_00/scene0000_00{file}"
    path.unlink()
    if content is not None:
        path.write_text(content)
    store = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True}, max_failure_ratio=0.5)
    (failure,) = store.failures()
    assert failure["reason"] == reason
    assert "scene0000_00" in failure["path"]
    assert store.names.tolist() == ["scene0001_00"]
    with pytest.raises(DataError, match="1 of 2 inputs cannot be used"):
        prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": True})


def sentence(scene: str, instance: int, name: str, text: str) -> dict[str, object]:
    return {"scene_id": scene, "object_id": str(instance), "object_name": name, "ann_id": "0", "description": text,
            "token": text.split()}  # fmt: skip


def test_sentences_are_unique_by_what_their_file_describes(
    tmp_path: Path, tree: Path, prepared_scenes: Prepared
) -> None:
    rows = [
        sentence("scene0000_00", 2, "office_chair", "the chair"),
        sentence("scene0000_00", 2, "office_chair", "a seat with wheels"),
        sentence("scene0000_00", 3, "picture", "the picture"),
        sentence("scene0000_00", 1, "wall", "the wall"),
        sentence("scene0000_00", 4, "unheard_of", "the thing"),
        sentence("scene0001_00", 3, "picture", "one picture"),
        sentence("scene0001_00", 0, "picture", "the other picture"),
    ]
    (tmp_path / "refer.json").write_text(json.dumps(rows))
    scenes = {"aligned": True, "sentences": [str(tmp_path / "refer.json")]}
    store = prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)
    found = {s.text: s.unique for row in range(2) for s in store.scene(row).sentences}
    assert found == {
        "the chair": True, "a seat with wheels": True, "the picture": True,
        "the wall": False, "the thing": False,  # both count as other furniture
        "one picture": False, "the other picture": False,
    }  # fmt: skip
    assert store.scene(0).sentences[0].instance == 2
    (tmp_path / "refer.json").write_text('[{"scene_id": 1}]')
    with pytest.raises(DataError, match="expected a list with scene_id"):
        read_sentences([tmp_path / "refer.json"], {})


def test_unaligned_scans_have_no_votenet_export(tree: Path, tmp_path: Path, prepared_scenes: Prepared) -> None:
    store = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})
    with pytest.raises(DataError, match=r"needs scenes along the axes; prepare\.scenes\.aligned: true"):
        write_scans(tmp_path / "out", [store.scene(0)], classes=store.info.classes, box_classes=store.info.box_classes)
