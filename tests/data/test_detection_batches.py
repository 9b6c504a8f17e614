"""Batches for detectors: what flips, turns and crops do to boxes, whom points vote for, what comes with the points."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pointloom.data.box_transforms import Cuboid, crop, flip, scale, turn, upright, votes
from pointloom.data.detection_batches import (
    DetectionLoader,
    DetectionSampling,
    boxed_points,
    collate,
    mean_sizes,
)
from pointloom.data.scenes import SceneBoxes
from pointloom.errors import DataError
from pointloom.ops import count_points_in_boxes, points_in_boxes
from tests.tasks.boxed_rooms import SIZES, Rooms, boxed_scene

SAMPLING = DetectionSampling(
    num_points=256, oriented=True, flip_x=True, flip_y=True, rotate_degrees=30.0, scale=(0.9, 1.1)
)


def turned_room(seed: int = 0) -> Rooms:
    return Rooms(boxed_scene(seed, turned=True))


@pytest.mark.parametrize("change", ["flip_x", "flip_y", "turn", "scale"])
def test_points_stay_in_their_boxes(change: str) -> None:
    before = boxed_points(turned_room(), 0)
    changes = {
        "flip_x": lambda: flip(before, 0),
        "flip_y": lambda: flip(before, 1),
        "turn": lambda: turn(before, 0.7),
        "scale": lambda: scale(before, 1.2),
    }
    after = changes[change]()
    assert not np.allclose(after.coord, before.coord)
    for i, instance in enumerate(before.box_instance):
        grown = after.boxes[i : i + 1] + np.array([0, 0, 0, 1e-3, 1e-3, 1e-3, 0], dtype=np.float32)
        points = torch.from_numpy(after.coord[after.instance == instance])
        assert points_in_boxes(points, torch.from_numpy(grown)).all()


def test_two_flips_are_a_half_turn() -> None:
    before = boxed_points(turned_room(), 0)
    twice, turned = flip(flip(before, 0), 1), turn(before, np.pi)
    np.testing.assert_allclose(twice.coord, turned.coord, atol=1e-5)
    np.testing.assert_allclose(twice.boxes[:, :6], turned.boxes[:, :6], atol=1e-5)
    np.testing.assert_allclose(np.cos(twice.boxes[:, 6] - turned.boxes[:, 6]), 1, atol=1e-5)


def test_axis_aligned_box_grows_when_turned() -> None:
    box = np.array([[0, 0, 0, 2, 1, 1, np.pi / 6]], dtype=np.float32)
    wanted = [2 * np.cos(np.pi / 6) + 0.5, 1 + np.cos(np.pi / 6), 1]
    np.testing.assert_allclose(upright(box)[0, 3:6], wanted, rtol=1e-6)


def test_points_vote_for_the_box_of_their_instance() -> None:
    scene = boxed_points(turned_room(), 0)
    offset, inside = votes(scene)
    assert np.array_equal(inside, scene.instance >= 0)
    for i, instance in enumerate(scene.box_instance):
        mine = scene.instance == instance
        wanted = np.broadcast_to(scene.boxes[i, None, None, :3], (mine.sum(), 3, 3))
        np.testing.assert_allclose(scene.coord[mine, None] + offset[mine], wanted, atol=1e-6)
    assert (offset[~inside] == 0).all()


def test_a_box_without_its_instance_gets_no_votes_where_others_have_theirs() -> None:
    scene = boxed_points(turned_room(), 0)
    some = replace(scene, box_instance=np.where(np.arange(len(scene.boxes)) == 0, -1, scene.box_instance))
    (offset, inside), (_, before) = votes(some), votes(scene)
    assert np.array_equal(inside, before & (scene.instance != scene.box_instance[0]))
    assert before.sum() > inside.sum() > 0
    assert (offset[~inside] == 0).all()


def test_points_of_untied_boxes_vote_for_up_to_three_boxes_around_them() -> None:
    scene = boxed_points(turned_room(), 0)
    around = np.array([[0, 0, 0, s, s, s, 0] for s in (1, 2, 3, 4)], dtype=np.float32)
    around[:, 0] = (0, 0.1, 0.2, 0.3)
    few = replace(
        scene, coord=np.array([(0, 0, 0), (1.2, 0, 0), (9, 0, 0)], dtype=np.float32), boxes=around,
        label=np.zeros(4, np.int64), box_instance=np.full(4, -1), instance=np.full(3, -1),
    )  # fmt: skip
    offset, inside = votes(few)
    assert inside.tolist() == [True, True, False]
    np.testing.assert_allclose(offset[0, :, 0], [0, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(offset[1, :, 0], [-1.0, -0.9, -1.0], atol=1e-6)  # in two boxes: the first again


def test_scene_without_boxes_has_no_votes_and_one_padded_box() -> None:
    scene = boxed_points(Rooms(boxed_scene(0, num_boxes=0)), 0)
    batch = collate([scene], [0])
    assert batch.label.tolist() == [[-1]]
    assert not batch.on_object.any()


def test_scene_that_was_never_boxed_is_an_error() -> None:
    rooms = Rooms(replace(boxed_scene(0), boxes=None))
    with pytest.raises(DataError, match="room_0 has no boxes"):
        boxed_points(rooms, 0)


def test_height_is_above_the_lowest_hundredth_of_a_percent() -> None:
    scene = boxed_scene(0)
    z = scene.coord[:, 2]
    np.testing.assert_allclose(boxed_points(Rooms(scene), 0).height, z - np.percentile(z, 0.99), atol=1e-6)


def test_crop_keeps_points_and_the_boxes_between_them() -> None:
    whole = boxed_points(turned_room(), 0)
    seen = set()
    for seed in range(20):
        part = crop(whole, Cuboid(min_points=200, min_crop=0.3, aspect=0.5), np.random.default_rng(seed))
        low, high = part.coord.min(0), part.coord.max(0)
        between = ((whole.boxes[:, :3] >= low) & (whole.boxes[:, :3] <= high)).all(1)
        assert np.array_equal(part.boxes, whole.boxes[between])
        assert len(part.coord) > 200
        assert between.any()
        seen.add(len(part.label))
    assert len(seen) > 1
    assert crop(whole, Cuboid(min_points=10**6, min_crop=0.5, aspect=0.8), np.random.default_rng(0)) is whole


def test_batches_are_a_function_of_seed_epoch_and_step() -> None:
    rooms = Rooms(*(boxed_scene(i, num_boxes=i) for i in range(4)))
    loader = DetectionLoader(rooms, np.arange(4), sampling=SAMPLING, batch_size=2, seed=3)
    first, second = list(loader.batches(0))
    (resumed,) = loader.batches(0, first_step=1)
    for name, value in vars(second).items():
        assert torch.equal(value, getattr(resumed, name))
    assert sorted([*first.row.tolist(), *second.row.tolist()]) == [0, 1, 2, 3]
    assert first.coord.shape == (2, 256, 3)
    assert not torch.equal(next(loader.batches(1)).coord, first.coord)


def test_training_boxes_hold_their_points_after_all_changes() -> None:
    rooms = Rooms(*(boxed_scene(i, turned=True) for i in range(4)))
    for oriented in (True, False):
        sampling = replace(SAMPLING, oriented=oriented, num_points=900)
        for batch in DetectionLoader(rooms, np.arange(4), sampling=sampling, batch_size=4, seed=0).batches(0):
            grown = batch.boxes + torch.tensor([0, 0, 0, 1e-3, 1e-3, 1e-3, 0])
            assert (count_points_in_boxes(batch.coord, grown)[batch.label >= 0] >= 130).all()
            assert bool((batch.boxes[..., 6] != 0).any()) == oriented


def test_tested_points_do_not_change_from_call_to_call() -> None:
    rooms = Rooms(*(boxed_scene(i) for i in range(3)))
    loader = DetectionLoader(rooms, np.arange(3), sampling=SAMPLING, batch_size=2, seed=0)
    once, again = list(loader.draw(1)), list(loader.draw(1))
    assert [len(b.row) for b in once] == [2, 1]
    assert all(torch.equal(a.coord, b.coord) for a, b in zip(once, again, strict=True))
    assert not torch.equal(next(loader.draw(2)).coord, once[0].coord)


def test_few_points_are_drawn_repeatedly() -> None:
    rooms = Rooms(boxed_scene(0))
    sampling = DetectionSampling(num_points=3000, oriented=False)
    (batch,) = DetectionLoader(rooms, np.arange(1), sampling=sampling, batch_size=1, seed=0).draw(0)
    assert batch.coord.shape == (1, 3000, 3)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no scene to train or test on"):
        DetectionLoader(Rooms(), np.arange(0), sampling=SAMPLING, batch_size=1, seed=0)


def test_mean_sizes_are_those_of_the_class_and_of_all_where_it_has_none() -> None:
    rooms = Rooms(*(boxed_scene(i) for i in range(6)))
    sizes = mean_sizes(rooms, np.arange(6), num_classes=3, oriented=True)
    np.testing.assert_allclose(sizes[:2], SIZES, rtol=0.06)
    true: list[SceneBoxes] = [scene.boxes for scene in rooms.scenes if scene.boxes is not None]
    np.testing.assert_allclose(sizes[2], np.concatenate([b.size for b in true]).mean(0), rtol=1e-5)
    with pytest.raises(DataError, match="no boxes"):
        mean_sizes(Rooms(boxed_scene(0, num_boxes=0)), np.arange(1), num_classes=3, oriented=True)
