"""Pairs of views: what belongs together, what a batch depends on, what is refused."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data.scene_batches import SceneSampling, scene_points
from pointloom.data.scene_transforms import INDOOR, Augmentation
from pointloom.data.scene_views import SceneViewsLoader
from pointloom.data.scenes import Scene
from pointloom.errors import DataError
from pointloom.ops.voxels import voxelize


@dataclass
class Rooms:
    path: Path = field(default_factory=lambda: Path("rooms"))

    def scene(self, row: int) -> Scene:
        rng = np.random.default_rng(row)
        coord = rng.uniform(0, 2, (400 + 50 * row, 3)).astype(np.float32)
        return Scene(
            name=f"room{row}", coord=coord, color=(coord * 100).astype(np.uint8), normal=None,
            segment=rng.integers(0, 3, len(coord)).astype(np.int16), instance=np.arange(len(coord), dtype=np.int32) % 7,
        )  # fmt: skip


def loader(augmentation: Augmentation = INDOOR, **changed: object) -> SceneViewsLoader:
    sampling = SceneSampling(**{"voxel_size": 0.1, "augmentation": augmentation, **changed})  # type: ignore[arg-type]
    return SceneViewsLoader(Rooms(), np.arange(5), sampling=sampling, batch_size=2, seed=3)


def test_places_are_those_of_the_same_points_before_the_change() -> None:
    batch = next(iter(loader().batches(0)))
    assert len(batch.scenes.offset) == 4
    assert batch.scenes.row[::2].tolist() == batch.scenes.row[1::2].tolist()
    starts = [0, *batch.scenes.offset.tolist()]
    for scene, row in enumerate(batch.scenes.row.tolist()):
        part = slice(starts[scene], starts[scene + 1])
        original = scene_points(Rooms().scene(row))
        distance = np.abs(original.coord[None] - batch.place[part].numpy()[:, None]).sum(-1)
        index = distance.argmin(1)
        assert (distance.min(1) == 0).all()
        assert (original.segment[index] == batch.scenes.segment[part].numpy()).all()
        assert (original.instance[index] == batch.scenes.instance[part].numpy()).all()


def test_views_differ_and_without_augmentation_only_by_the_drawn_points() -> None:
    batch = next(iter(loader(Augmentation()).batches(0)))
    assert torch.equal(batch.place, batch.scenes.coord)
    wild = next(iter(loader().batches(0)))
    first = wild.scenes.offset[0]
    second = slice(int(first), int(first) + 20)
    assert not torch.allclose(wild.scenes.coord[:20], wild.scenes.coord[second])
    assert not torch.allclose(wild.place[:first], wild.scenes.coord[:first])


def test_large_scenes_are_cropped_about_the_same_point_in_both_views() -> None:
    batch = next(iter(loader(Augmentation(rotate_degrees=180.0), max_points=60).batches(0)))
    assert batch.scenes.offset.tolist() == [60, 120, 180, 240]
    for scene in range(2):
        here, there = batch.place[120 * scene : 120 * scene + 120].split(60)
        assert torch.cdist(here, there).amin(1).max() < 0.4


def test_a_batch_depends_on_seed_epoch_and_step_alone() -> None:
    views = loader()
    whole = list(views.batches(1))
    (last,) = views.batches(1, first_step=1)
    assert len(views) == len(whole) == 2
    assert torch.equal(whole[1].scenes.coord, last.scenes.coord)
    assert torch.equal(whole[1].place, last.place)
    assert not torch.equal(whole[0].place[:20], next(iter(views.batches(2))).place[:20])


def test_blocks_and_no_scenes_are_refused() -> None:
    with pytest.raises(DataError, match="set block to none, got 'keep'"):
        loader(block="keep")
    with pytest.raises(DataError, match="there is no scene to train or test on"):
        SceneViewsLoader(Rooms(), np.arange(0), sampling=SceneSampling(voxel_size=0.1), batch_size=2, seed=0)


def test_every_point_of_a_view_has_a_voxel_of_its_own_in_the_network() -> None:
    batch = next(iter(loader(max_points=120).batches(0)))
    voxels, _, _ = voxelize(batch.scenes.coord, batch.scenes.offset, 0.1)
    assert len(voxels.key) == len(batch.scenes.coord)
