"""Few labelled scenes and few labelled points: only labels of training scenes go, and no pickle is run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data.scene_store import SceneStore
from pointloom.datasets.limited_labels import FewPointLabels, draw_point_labels, read_point_lists
from pointloom.errors import DataError, ParamsError
from tests.datasets.scannet_tree import write_tree

Prepared = Callable[..., SceneStore]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "ScanNet", {"scene0000_00": "train", "scene0002_00": "train", "scene0001_00": "val"})


def test_scenes_that_are_not_listed_go_to_pre_training(tree: Path, prepared_scenes: Prepared) -> None:
    (tree / "20.txt").write_text("scene0002_00\n")
    scenes = {"aligned": False, "labelled_scenes": "20.txt"}
    store = prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)
    splits = dict(zip(store.names.tolist(), store.splits.tolist(), strict=True))
    assert splits == {"scene0000_00": "pretrain", "scene0001_00": "test", "scene0002_00": "train"}
    labelled = [bool((store.scene(row).segment >= 0).any()) for row in range(3)]
    assert labelled == [False, True, True]
    assert store.scene(0).boxes is None
    (tree / "20.txt").write_text("\n")
    with pytest.raises(DataError, match="the list is empty"):
        prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)


@pytest.mark.parametrize("kind", ["arrays", "tensors", "lists"])
def test_points_that_are_not_listed_lose_their_labels(tree: Path, prepared_scenes: Prepared, kind: str) -> None:
    make = {"arrays": np.array, "tensors": torch.tensor, "lists": list}[kind]
    torch.save({"scene0000_00": make([0, 9]), "scene0002_00": make([5])}, tree / "points20")
    scenes = {"aligned": False, "labelled_points": "points20"}
    whole = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})
    before = [whole.scene(row).segment for row in range(3)]
    store = prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)
    for row, kept in enumerate(([0, 9], range(24), [5])):
        expected = np.full(24, -1)
        expected[list(kept)] = before[row][list(kept)]
        np.testing.assert_array_equal(store.scene(row).segment, expected)
    assert store.splits.tolist() == ["train", "test", "train"]


def test_lists_for_other_data_are_refused(tree: Path, prepared_scenes: Prepared) -> None:
    (tree / "20.txt").write_text("scene0700_00\n")
    with pytest.raises(DataError, match=r"20\.txt: names no scene of .*, such as scene0000_00"):
        prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False, "labelled_scenes": "20.txt"})
    scenes = {"aligned": False, "labelled_points": "points20"}
    torch.save({"scene0000_00": np.array([0, 99]), "scene0002_00": np.array([0])}, tree / "points20")
    with pytest.raises(DataError, match="has 24 points, the lists name point 99"):
        prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)
    torch.save({"scene0000_00": np.array([0])}, tree / "points20")
    with pytest.raises(DataError, match="scene0002_00: the lists of labelled points have no such scene"):
        prepared_scenes("scannet", tree, variant="classes20", scenes=scenes)


def test_points_of_a_thinned_export_cannot_be_named(tmp_path: Path, prepared_scenes: Prepared) -> None:
    with pytest.raises(ParamsError, match=r"prepare\.scenes\.labelled_points: the lists count the vertices"):
        prepared_scenes("scannet_votenet", tmp_path, variant="classes20", scenes={"labelled_points": "points20"})


def test_drawn_points_depend_on_seed_and_name_and_fewer_are_a_subset_of_more(
    tree: Path, prepared_scenes: Prepared
) -> None:
    store = prepared_scenes("scannet", tree, variant="classes20", scenes={"aligned": False})
    scene = store.scene(0)
    labelled = np.flatnonzero(scene.segment >= 0)
    few, more, other = (
        np.flatnonzero(draw_point_labels(scene, number, seed=seed).segment >= 0)
        for number, seed in ((3, 0), (6, 0), (6, 1))
    )
    assert (len(few), len(more)) == (3, 6)
    assert set(few) < set(more) < set(labelled)
    assert set(other) != set(more)
    drawn = FewPointLabels(store, 6, seed=0).scene(0)
    np.testing.assert_array_equal(drawn.segment[more], scene.segment[more])
    np.testing.assert_array_equal(np.flatnonzero(drawn.segment >= 0), more)
    assert set(np.flatnonzero(drawn.instance >= 0)) <= set(more)
    assert (drawn.boxes, drawn.sentences) == (None, ())
    renamed = draw_point_labels(replace(scene, name="another"), 6, seed=0)
    assert set(np.flatnonzero(renamed.segment >= 0)) != set(more)
    np.testing.assert_array_equal(draw_point_labels(scene, 10**6, seed=0).segment, scene.segment)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)


def test_nothing_in_a_list_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"scene0000_00": Evil()}, tmp_path / "points20")
    with pytest.raises(DataError, match="expected a file saved by torch"):
        read_point_lists(tmp_path / "points20")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "points20").write_bytes(b"no")
    with pytest.raises(DataError, match="expected a file saved by torch"):
        read_point_lists(tmp_path / "points20")
