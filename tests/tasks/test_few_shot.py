"""Seeded folds have the promised sizes; the community's folds are read the right way up."""

from pathlib import Path

import numpy as np
import pytest

from pointloom.data.fold_clouds import FoldClouds
from pointloom.data.folds import Fold, FoldPart
from pointloom.errors import DataError
from pointloom.tasks.few_shot import draw_fold

LABELS = np.repeat([0, 1, 2, 3, -1], [20, 20, 20, 6, 10])
TRAIN, TEST = np.arange(0, 76, 2), np.arange(1, 76, 2)


def fold(number: int, *, way: int = 3, shot: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return draw_fold(TRAIN, TEST, LABELS, way=way, shot=shot, query=5, fold=number)


def test_fold_has_its_objects_per_class_and_no_test_object_in_training() -> None:
    train, test = fold(0)
    for rows, per_class, allowed in ((train, 4, TRAIN), (test, 5, TEST)):
        assert np.isin(rows, allowed).all()
        assert len(np.unique(rows)) == len(rows)
        assert {label: int((LABELS[rows] == label).sum()) for label in (0, 1, 2)} == dict.fromkeys((0, 1, 2), per_class)


def test_number_makes_the_fold() -> None:
    assert np.array_equal(fold(1)[0], fold(1)[0])
    assert not np.array_equal(fold(1)[0], fold(2)[0])


def test_too_few_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 classes have 4 training and 5 test objects, 4 are needed"):
        fold(0, way=4)


def part(label: list[int], points: np.ndarray) -> FoldPart:
    return FoldPart(points=[points] * len(label), label=np.array(label), original=np.array(label))


def test_clouds_stand_upright_and_begin_with_the_farthest_points() -> None:
    points = np.zeros((4, 6), dtype=np.float32)
    points[:, 1] = [0, 0.1, 5, 2]  # y is up in the file
    points[:, 2] = [0, 0, 1, 0]
    clouds = FoldClouds(
        Fold(train=part([1, 0], points), test=part([0, 1], points)), path=Path("0.pkl"), num_points=3, way=2
    )
    assert clouds.labels.tolist() == [1, 0, 0, 1]
    assert (clouds.rows("train").tolist(), clouds.rows("test").tolist()) == ([0, 1], [2, 3])
    assert clouds.coords(np.array([2]), 3)[0] == pytest.approx(np.array([[0, 0, 0], [0, -1, 5], [0, 0, 2]]))


def test_fold_of_other_classes_or_too_few_points_is_a_clear_error() -> None:
    zeros = np.zeros((4, 6), np.float32)
    made = Fold(train=part([0, 1], zeros), test=part([0, 1], zeros))
    with pytest.raises(DataError, match=r"expected classes 0 to 2, got \[0, 1\]"):
        FoldClouds(made, path=Path("0.pkl"), num_points=3, way=3)
    with pytest.raises(DataError, match="a cloud has 4 points, 5 are to be drawn from"):
        FoldClouds(made, path=Path("0.pkl"), num_points=5, way=2)
    for odd, message in (
        (part([0], zeros), r"expected classes 0 to 1, got \[0\]"),
        (part([0, 1], zeros + np.nan), "NaN"),
    ):
        with pytest.raises(DataError, match=message):
            FoldClouds(Fold(train=part([0, 1], zeros), test=odd), path=Path("0.pkl"), num_points=3, way=2)
