"""Batches of scenes are a function of seed, epoch and step, and have one point per voxel."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.data.scene_batches import SceneLoader, SceneSampling, pack, scene_points
from pointloom.data.scene_transforms import INDOOR, voxel_keys
from pointloom.data.scenes import Scene
from pointloom.errors import DataError
from pointloom.structures import SceneBatch


class Rooms:
    """A store in memory."""

    path = Path("rooms")

    def __init__(self, *sizes: int) -> None:
        self.scenes = []
        for i, num in enumerate(sizes):
            rng = np.random.default_rng(i)
            coord = (rng.random((num, 3)) * [4, 3, 2] + [100, 50, 1]).astype(np.float32)
            self.scenes.append(
                Scene(f"{i}", coord, rng.integers(0, 256, (num, 3)).astype(np.uint8), None,
                      np.arange(num, dtype=np.int16), np.arange(num, dtype=np.int32))
            )  # fmt: skip

    def scene(self, row: int) -> Scene:
        return self.scenes[row]


def loader(*sizes: int, batch_size: int = 2, seed: int = 0, **sampling: object) -> SceneLoader:
    how = SceneSampling(**{"voxel_size": 0.3} | sampling)  # type: ignore[arg-type]
    return SceneLoader(Rooms(*sizes), np.arange(len(sizes)), sampling=how, batch_size=batch_size, seed=seed)


def same(a: SceneBatch, b: SceneBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


def test_batches_are_a_function_of_seed_epoch_and_step() -> None:
    sizes = (300, 400, 500, 600, 700)
    first = list(loader(*sizes, augmentation=INDOOR).batches(3))
    again = list(loader(*sizes, augmentation=INDOOR).batches(3))
    late = list(loader(*sizes, augmentation=INDOOR).batches(3, first_step=1))
    assert len(first) == len(loader(*sizes)) == 2
    assert all(map(same, first, again))
    assert same(first[1], late[0])
    assert len(late) == 1
    assert list(loader(*sizes).batches(3, first_step=2)) == []
    for other in (loader(*sizes, augmentation=INDOOR).batches(4), loader(*sizes, seed=1).batches(3)):
        assert not same(first[0], next(iter(other)))
    assert len(set(torch.cat([batch.row for batch in first]).tolist())) == 4
    alone = SceneLoader(
        Rooms(900), np.zeros(2, np.int64), sampling=SceneSampling(voxel_size=0.5), batch_size=1, seed=0
    )  # fmt: skip
    assert not same(*alone.batches(0))  # a scene that comes twice in an epoch has other points


def test_a_batch_packs_scenes_with_one_point_per_voxel() -> None:
    rooms = Rooms(300, 2000)
    for batch in (next(loader(300, 2000).batches(0)), pack([scene_points(s) for s in rooms.scenes], [0, 1])):
        assert batch.offset[-1] == len(batch.coord) == len(batch.segment) == len(batch.color)
        start = 0
        for row, end in zip(batch.row.tolist(), batch.offset.tolist(), strict=True):
            original = scene_points(rooms.scene(row))
            index = batch.segment[start:end].numpy()  # labels of these rooms are the numbers of their points
            np.testing.assert_array_equal(batch.coord[start:end], original.coord[index])
            np.testing.assert_array_equal(batch.color[start:end], original.color[index])
            start = end
    trained = next(loader(300, 2000).batches(0))
    start = 0
    for row, end in zip(trained.row.tolist(), trained.offset.tolist(), strict=True):
        keys = voxel_keys(scene_points(rooms.scene(row)).coord, 0.3)
        chosen = keys[trained.segment[start:end].numpy()]
        assert sorted(chosen) == sorted(set(keys))
        start = end


def test_draws_are_whole_scenes_one_by_one() -> None:
    sizes = (300, 2000)
    batches = list(loader(*sizes, augmentation=INDOOR, max_points=50).draw(0))
    assert [batch.row.tolist() for batch in batches] == [[0], [1]]
    for batch, room in zip(batches, Rooms(*sizes).scenes, strict=True):
        keys = voxel_keys(scene_points(room).coord, 0.3)
        first = np.unique(keys, return_index=True)[1]
        assert sorted(batch.segment.tolist()) == sorted(first)
    once, twice = (list(loader(*sizes).draw(1)) for _ in range(2))
    assert all(map(same, once, twice))
    assert not same(once[1], batches[1])


def test_coordinates_are_centred_and_unknown_colours_grey() -> None:
    (room,) = Rooms(500).scenes
    found = scene_points(Scene(room.name, room.coord, None, None, room.segment, room.instance))
    np.testing.assert_allclose(found.coord.min(0) + found.coord.max(0), [0, 0, np.ptp(room.coord[:, 2])], atol=1e-5)
    assert found.coord[:, 2].min() == 0
    assert (found.color == np.float32(160 / 255)).all()
    assert (found.normal == 0).all()


def test_large_scenes_are_cropped_to_a_sphere() -> None:
    batch = next(loader(3000, batch_size=1, voxel_size=0.1, max_points=200).batches(0))
    assert len(batch.coord) == 200
    middle = min(range(200), key=lambda i: float((batch.coord - batch.coord[i]).norm(dim=1).max()))
    whole = scene_points(Rooms(3000).scene(0)).coord
    radius = float((batch.coord - batch.coord[middle]).norm(dim=1).max())
    inside = np.linalg.norm(whole - batch.coord[middle].numpy(), axis=1) <= radius
    assert inside.sum() < 3 * 200


def test_blocks_are_kept_or_removed_unless_too_little_is_left() -> None:
    def points(num: int, block: str) -> list[int]:
        found = next(loader(num, batch_size=1, voxel_size=0.01, block=block).batches(0)).segment.tolist()
        return sorted(found)

    whole, kept, removed = (points(9000, block) for block in ("none", "keep", "remove"))
    assert sorted({*kept, *removed}) == whole  # the same seed draws the same block
    assert not set(kept) & set(removed)
    assert min(len(kept), len(removed)) > 1024
    for block, most in (("keep", 511), ("remove", 1023)):
        assert points(most, block) == points(most, "none")


def test_the_few_labelled_points_survive_the_voxels() -> None:
    found = loader(3000, batch_size=1, voxel_size=0.5, prefer_labelled=True)
    labels = np.full(3000, -1, np.int16)
    labels[[5, 1500]] = 1
    room = found.store.scene(0)
    found.store.scenes[0] = Scene(room.name, room.coord, room.color, None, labels, room.instance)  # type: ignore[attr-defined]
    assert [int((batch.segment == 1).sum()) for batch in (next(found.batches(0)), next(found.draw(0)))] == [2, 2]


def test_a_loop_that_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = loader(300, 300, 300, batch_size=1).batches(0)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_while_reading_reaches_the_loop() -> None:
    found = loader(300, 300, batch_size=1)
    found.rows = np.array([0, 9])
    with pytest.raises(IndexError):
        list(found.batches(0))


def test_no_scenes_are_an_error() -> None:
    with pytest.raises(DataError, match="no scene to train or test on"):
        loader()
