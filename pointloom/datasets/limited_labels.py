"""ScanNet's data-efficient protocols: labels for some scenes (LR) or for some points (LA) of the training split.

The official choices are lists; for other data points are drawn. Only labels are limited: pre-training sees every scan,
and the test split keeps all of its labels.
"""

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.scene_loading import SceneSource
from pointloom.data.scenes import Scene
from pointloom.datasets.card import read_lines
from pointloom.errors import DataError


def read_scene_list(path: Path) -> frozenset[str]:
    """Read a list of scenes such as ``tasks/scenes/20.txt``, one name per line.

    Raises:
        DataError: It is missing or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such list of scenes")
    if not (names := read_lines(path)):
        raise DataError(f"{path}: the list is empty")
    return frozenset(names)


def read_point_lists(path: Path) -> dict[str, NDArray[np.int64]]:
    """Read which points are labelled, such as ``tasks/points/points20``: scene to numbers of vertices.

    The file was saved by torch. It is read without running anything in it: arrays, tensors, lists and dicts only.

    Raises:
        DataError: The file is missing or damaged, or holds something else.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_arrays()):
            content = torch.load(path, weights_only=True, map_location="cpu")
        return {str(name): np.asarray(points).astype(np.int64).reshape(-1) for name, points in content.items()}
    except Exception as error:  # a damaged file raises almost anything
        raise DataError(
            f"{path}: expected a file saved by torch with a dict from scenes to numbers of points ({error}); get it "
            "again"
        ) from error


def _arrays() -> list[Any]:
    """Return what NumPy's arrays are made with, under their old and new names."""
    reconstruct: Any = np.empty(0).__reduce__()[0]
    names = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    return [*names, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "bBhHiIlLqQ"}]


def keep_scene_labels(scene: Scene, labelled: frozenset[str]) -> Scene:
    """Return a training scene as one for pre-training if it is not in the list."""
    if scene.split != "train" or scene.name in labelled:
        return scene
    return replace(without_labels(scene), split="pretrain")


def without_labels(scene: Scene) -> Scene:
    """Return a scene without classes, instances, boxes and sentences."""
    segment, instance = np.full_like(scene.segment, -1), np.full_like(scene.instance, -1)
    return replace(scene, segment=segment, instance=instance, boxes=None, sentences=())


def keep_point_labels(scene: Scene, labelled: Mapping[str, NDArray[np.int64]]) -> Scene:
    """Return a training scene with the classes and instances of its listed points only, and without boxes.

    Raises:
        DataError: The scene is not in the lists, or has fewer points than they say.
    """
    if scene.split != "train":
        return scene
    points = labelled.get(scene.name)
    if points is None:
        raise DataError(f"{scene.name}: the lists of labelled points have no such scene; are they for other data?")
    if len(points) and not 0 <= points.min() <= points.max() < len(scene.segment):
        raise DataError(
            f"{scene.name}: has {len(scene.segment)} points, the lists name point {points.max()}; they count the "
            "vertices of the original mesh"
        )
    return _labelled_at(scene, points)


def draw_point_labels(scene: Scene, number: int, *, seed: int) -> Scene:
    """Return a scene with the classes and instances of some of its labelled points only, and without boxes.

    The choice depends on seed and name of the scene alone; of one seed, fewer points are a subset of more.

    Args:
        scene: Any scene.
        number: Points that keep their label; all labelled ones where there are fewer.
        seed: Of the choice.

    Note:
        The official lists of ScanNet name points that an annotator would be asked about; here they are drawn evenly.
    """
    rng = np.random.default_rng([seed, zlib.crc32(scene.name.encode())])
    return _labelled_at(scene, rng.permutation(np.flatnonzero(scene.segment >= 0))[:number])


class FewPointLabels:
    """A store whose scenes have ``number`` labelled points each, see ``draw_point_labels``."""

    def __init__(self, store: SceneSource, number: int, *, seed: int) -> None:
        self.path = store.path
        self._store, self._number, self._seed = store, number, seed

    def scene(self, row: int) -> Scene:
        """Read one scene."""
        return draw_point_labels(self._store.scene(row), self._number, seed=self._seed)


def _labelled_at(scene: Scene, points: NDArray[np.int64]) -> Scene:
    segment, instance = np.full_like(scene.segment, -1), np.full_like(scene.instance, -1)
    segment[points], instance[points] = scene.segment[points], scene.instance[points]
    return replace(scene, segment=segment, instance=instance, boxes=None, sentences=())
