"""Synthetic rooms: labels, boxes and points agree, nothing collides or floats, and every room stands alone."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import shapely

from pointloom.data.scene_boxes import footprints
from pointloom.data.scenes import Scene
from pointloom.data.synthetic import Draw
from pointloom.data.synthetic_rooms import (
    BOX_CLASSES,
    KINDS,
    ROOM_CLASSES,
    Room,
    RoomSettings,
    generate_room,
    synthetic_scenes,
)
from pointloom.data.synthetic_rooms.recipes import furnished

SETTINGS = RoomSettings(num_points=4096)
NUM = len(KINDS)
ON_WALLS = {"window", "picture", "curtain"}


@cache
def room(index: int) -> Room:
    return generate_room(index, seed=3, settings=replace(SETTINGS, turned=index % 2 == 1))


def rooms() -> Iterator[Room]:
    return (room(index) for index in range(NUM))


def in_box_frame(scene: Scene, box: int, coord: np.ndarray) -> np.ndarray:
    assert scene.boxes is not None
    angle = -float(scene.boxes.heading[box])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return (coord - scene.boxes.center[box]) @ turn.T


def equal(one: Scene, other: Scene) -> bool:
    arrays = ("coord", "color", "normal", "segment", "instance")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    assert one.boxes is not None
    assert other.boxes is not None
    same &= np.array_equal(one.boxes.center, other.boxes.center)
    return same and (one.name, one.sentences) == (other.name, other.sentences)


def test_classes_are_those_of_scannet() -> None:
    assert len(ROOM_CLASSES) == 20
    assert ROOM_CLASSES[2:] == BOX_CLASSES
    assert set(KINDS) == {item.kind for item in rooms()}


def test_all_classes_occur_in_a_few_rooms() -> None:
    seen = {ROOM_CLASSES[label] for item in rooms() for label in np.unique(item.scene.segment)}
    assert set(ROOM_CLASSES) - seen <= {"shower curtain"}, set(ROOM_CLASSES) - seen


def test_points_are_finite_and_of_the_asked_number_with_unit_normals() -> None:
    for item in rooms():
        scene = item.scene
        assert scene.coord.shape == (4096, 3)
        assert scene.color is not None
        assert scene.normal is not None
        kinds = (scene.coord, scene.color, scene.normal, scene.segment, scene.instance)
        assert [array.dtype for array in kinds] == ["f4", "u1", "f4", "i2", "i4"]
        assert np.isfinite(scene.coord).all()
        assert np.linalg.norm(scene.normal, axis=1) == pytest.approx(1, abs=1e-3)
        assert len(np.unique(scene.coord, axis=0)) > 4090


def test_points_of_an_instance_lie_in_its_box_and_have_its_class() -> None:
    for item in rooms():
        scene, boxes = item.scene, item.scene.boxes
        assert boxes is not None
        reach = 3 * SETTINGS.noise * float(np.ptp(scene.coord, axis=0).max()) * 1.5
        for i, instance in enumerate(boxes.instance):
            mine = scene.instance == instance
            assert mine.sum() >= SETTINGS.least_points
            assert set(scene.segment[mine]) == {ROOM_CLASSES.index(BOX_CLASSES[boxes.label[i]])}
            assert (np.abs(in_box_frame(scene, i, scene.coord[mine])) <= boxes.size[i] / 2 + reach).all()


def test_what_is_no_instance_is_wall_floor_or_unlabelled() -> None:
    for item in rooms():
        scene = item.scene
        assert set(scene.segment[scene.instance < 0].tolist()) <= {-1, 0, 1}
        assert scene.boxes is not None
        assert set(scene.instance.tolist()) - {-1} == set(scene.boxes.instance.tolist())
        assert (scene.segment < 0).mean() < 0.05


def test_boxes_do_not_collide() -> None:
    for item in rooms():
        boxes = item.scene.boxes
        assert boxes is not None
        corners = []
        for center, size, heading in zip(boxes.center, boxes.size, boxes.heading, strict=True):
            rectangle = shapely.box(-size[0] / 2, -size[1] / 2, size[0] / 2, size[1] / 2)
            turned = shapely.affinity.rotate(rectangle, float(heading), origin=(0, 0), use_radians=True)
            corners.append(shapely.affinity.translate(turned, float(center[0]), float(center[1])))
        low, high = boxes.center[:, 2] - boxes.size[:, 2] / 2, boxes.center[:, 2] + boxes.size[:, 2] / 2
        for i in range(len(corners)):
            for j in range(i):
                together = min(high[i], high[j]) - max(low[i], low[j])
                assert together < 1e-4 or corners[i].intersection(corners[j]).area < 1e-5, (i, j)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_floats(kind: str) -> None:
    plan = furnished(kind, Draw(np.random.default_rng(1)), clutter=True)
    assert len(plan.placed) > 5
    for item in plan.placed:
        low = item.center[2] - item.thing.size[2] / 2
        under = [
            other
            for other in plan.placed
            if abs(other.center[2] + other.thing.size[2] / 2 - low) < 0.01
            and shapely.Polygon(footprints(other.center[None], other.thing.size[None], np.array([other.heading]))[0])
            .buffer(0.01)
            .contains(shapely.Point(item.center[:2]))
        ]
        assert abs(low) < 1e-6 or item.thing.noun in ON_WALLS or under, item.thing.noun


def test_seats_stand_around_tables_and_look_at_them() -> None:
    found = 0
    for seed in range(6):
        plan = furnished("dining room", Draw(np.random.default_rng(seed)), clutter=False)
        table = next((item for item in plan.placed if item.thing.noun == "table"), None)
        for item in plan.placed:
            if table is None or item.thing.noun != "chair":
                continue
            looks = np.array([np.sin(item.heading), -np.cos(item.heading)])
            toward = table.center[:2] - item.center[:2]
            side = np.abs(np.array([[np.cos(table.heading), np.sin(table.heading)]]) @ looks)  # 0 or 1 up to 0.25 rad
            assert toward @ looks > 0.3
            assert min(side.item(), 1 - side.item()) < 0.3
            found += 1
    assert found >= 8


def test_walls_enclose_everything() -> None:
    for index in range(0, NUM, 2):
        scene = room(index).scene
        wall = scene.coord[scene.segment == 0]
        assert (scene.coord[:, :2].min(axis=0) > wall[:, :2].min(axis=0) - 0.1).all()
        assert (scene.coord[:, :2].max(axis=0) < wall[:, :2].max(axis=0) + 0.1).all()
        assert np.abs(scene.coord[scene.segment == 1, 2]).max() < 0.1


def test_same_seed_and_index_give_the_same_room_whatever_was_made_before() -> None:
    np.random.seed(0)
    assert equal(generate_room(2, seed=3, settings=SETTINGS).scene, room(2).scene)
    streamed = list(synthetic_scenes(3, seed=3, num_points=4096))
    assert equal(streamed[2], room(2).scene)
    assert [scene.name for scene in streamed] == [f"room-3-{i:06d}" for i in range(3)]


def test_other_seeds_give_other_rooms() -> None:
    assert not equal(generate_room(2, seed=4, settings=SETTINGS).scene, room(2).scene)


def test_a_turned_room_is_not_aligned_and_its_boxes_turn_with_it() -> None:
    turned, straight = room(5).scene, generate_room(5, seed=3, settings=SETTINGS).scene
    assert (turned.aligned, straight.aligned) == (False, True)
    assert turned.boxes is not None
    assert straight.boxes is not None
    apart = (turned.boxes.heading - straight.boxes.heading) % (2 * np.pi)
    assert apart == pytest.approx(apart[0], abs=1e-4)
    assert np.linalg.norm(turned.coord, axis=1) == pytest.approx(np.linalg.norm(straight.coord, axis=1), abs=1e-4)


def test_a_ceiling_is_scanned_without_a_class() -> None:
    scene = generate_room(2, seed=3, settings=replace(SETTINGS, ceiling=True)).scene
    top = scene.coord[:, 2] > scene.coord[:, 2].max() - 0.02
    assert top.mean() > 0.05
    assert (scene.segment[top & (scene.segment != 0)] == -1).all()


def test_hardly_seen_objects_are_not_labelled() -> None:
    strict = generate_room(2, seed=3, settings=replace(SETTINGS, least_points=60)).scene
    assert np.bincount(strict.instance[strict.instance >= 0]).min() >= 60
    assert strict.boxes is not None
    assert room(2).scene.boxes is not None
    assert (strict.segment == -1).sum() > (room(2).scene.segment == -1).sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("garage",)}, "choose among living room"),
        ({"num_points": 0}, "must be at least 1"),
        ({"noise": 1.0}, r"noise in \[0, 0.05\]"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(synthetic_scenes(1, seed=0, **options))
