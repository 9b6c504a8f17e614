"""Scores of boxes against hand-computed cases and the VOC definition; which boxes count; the falling momentum."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pointloom.structures import BoxPredictions, DetectionBatch, Losses
from pointloom.tasks.box_matches import match_boxes
from pointloom.tasks.detection import Detection, KeepRules, MomentumSchedule, find_boxes, kept_boxes
from pointloom.tasks.detection_scores import (
    DetectionScores,
    FoundBoxes,
    TrueBoxes,
    average_precision,
    detection_scores,
    resampled_map,
)
from tests.tasks.boxed_rooms import boxed_batch, boxed_scene

RULES = KeepRules(nms_iou=0.25, min_objectness=0.05, min_points=5)


def cube(x: float, *, size: float = 1.0) -> list[float]:
    return [x, 0, 0, size, size, size, 0]


def found(*rows: tuple[int, float, list[float]]) -> FoundBoxes:
    """Boxes as (scene, x, scores)."""
    return FoundBoxes(
        boxes=np.array([cube(x) for _, x, _ in rows], dtype=np.float32).reshape(-1, 7),
        score=np.array([s for _, _, s in rows], dtype=np.float32).reshape(len(rows), -1),
        scene=np.array([scene for scene, _, _ in rows], dtype=np.int64),
    )


def true(*rows: tuple[int, float, int]) -> TrueBoxes:
    """Boxes as (scene, x, label)."""
    return TrueBoxes(
        boxes=np.array([cube(x) for _, x, _ in rows], dtype=np.float32).reshape(-1, 7),
        label=np.array([label for _, _, label in rows], dtype=np.int64),
        scene=np.array([scene for scene, _, _ in rows], dtype=np.int64),
    )


def scores(boxes: FoundBoxes, truth: TrueBoxes, *, threshold: float = 0.25) -> DetectionScores:
    return detection_scores(match_boxes(boxes, truth), truth, threshold=threshold)


def test_average_precision_of_a_hand_computed_case() -> None:
    """Right, wrong, right, wrong, right of four: envelope 1, 2/3, 3/5, each for a quarter of the recall."""
    right = np.array([True, False, True, False, True])
    assert average_precision(right, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)


def test_precision_falls_only() -> None:
    """Wrong, right, right of two: precision 0, 1/2, 2/3; the envelope is 2/3 all along."""
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)


def voc_area(right: NDArray[np.bool_], number: int) -> float:
    """The area as PASCAL VOC's development kit of 2010 integrates it, point by point."""
    true_positive, false_positive = np.cumsum(right), np.cumsum(~right)
    recall = [0.0, *(true_positive / number), 1.0]
    precision = [0.0, *(true_positive / np.maximum(true_positive + false_positive, 1e-9)), 0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)))


def test_average_precision_equals_vocs_integral() -> None:
    rng = np.random.default_rng(0)
    for number in (1, 5, 60):
        right = rng.random(80) < 0.4
        right[np.cumsum(right) > number] = False
        assert average_precision(right, number) == pytest.approx(voc_area(right, number))


def test_second_box_on_the_same_object_is_wrong() -> None:
    result = scores(found((0, 0.0, [0.9]), (0, 0.1, [0.8]), (0, 5.0, [0.7])), true((0, 0.0, 0), (0, 5.0, 0)))
    assert result.mean_ap == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert result.mean_recall == 100


def test_overlap_must_exceed_the_threshold() -> None:
    """Cubes shifted by 0.6 share 0.4 of 1.6: IoU 0.25 up to rounding; the threshold itself is not enough."""
    boxes, truth = found((0, 0.0, [0.9])), true((0, 0.5, 0))
    assert scores(boxes, truth, threshold=1 / 3 - 1e-6).mean_ap == 100
    assert scores(boxes, truth, threshold=0.5 / 1.5).mean_ap == 0


def test_box_is_compared_with_the_object_it_overlaps_most() -> None:
    """Both boxes overlap the second object most; the first object, overlapped by 0.43, stays unfound."""
    boxes, truth = found((0, 0.4, [0.9]), (0, 0.5, [0.8])), true((0, 0.0, 0), (0, 0.6, 0))
    result = scores(boxes, truth)
    assert result.mean_recall == 50
    assert result.mean_ap == 50


def test_scenes_and_classes_are_kept_apart() -> None:
    boxes = found((0, 0.0, [0.9, 0.1]), (1, 0.0, [0.1, 0.8]))
    truth = true((0, 0.0, 1), (1, 0.0, 0))
    result = scores(boxes, truth)
    assert result.ap.tolist() == [50, 50]  # every box stands for both classes: the right one has the lower score


def test_scores_of_all_scenes_are_in_one_order() -> None:
    """The wrong box of scene 1 is better than the right one of scene 0."""
    result = scores(found((0, 0.0, [0.5]), (1, 9.0, [0.6])), true((0, 0.0, 0), (1, 0.0, 0)))
    assert result.mean_ap == pytest.approx(25)
    assert result.mean_recall == 50


def test_class_without_true_boxes_is_left_out_of_the_mean() -> None:
    result = scores(found((0, 0.0, [0.9, 0.9])), true((0, 0.0, 0)))
    assert result.mean_ap == 100
    assert np.isnan(result.ap[1])


def test_scene_without_objects_has_only_wrong_boxes() -> None:
    alone = scores(found((0, 0.0, [0.5])), true((0, 0.0, 0)))
    with_empty_scene = scores(found((0, 0.0, [0.5]), (1, 0.0, [0.9])), true((0, 0.0, 0)))
    assert alone.mean_ap == 100
    assert with_empty_scene.mean_ap == 50


def test_nothing_found_is_zero_and_nothing_to_find_is_an_error() -> None:
    nothing = FoundBoxes(np.zeros((0, 7), np.float32), np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
    result = scores(nothing, true((0, 0.0, 0)))
    assert (result.mean_ap, result.mean_recall) == (0, 0)
    with pytest.raises(ValueError, match="not a single true box"):
        scores(found((0, 0.0, [0.9])), true())


def test_boxes_and_scores_that_are_no_numbers_are_wrong() -> None:
    boxes = found((0, np.nan, [0.9]), (0, 0.0, [0.8]), (0, 5.0, [np.nan]))
    result = scores(boxes, true((0, 0.0, 0), (0, 5.0, 0)))
    assert result.mean_ap == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)  # wrong, right, right (last)


class Fixed(nn.Module):
    """A detector that always says the same."""

    def __init__(self, proposed: BoxPredictions) -> None:
        super().__init__()
        self.proposed = proposed
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch: DetectionBatch) -> Losses:
        return {"loss": self.norm(batch.coord[0, :, :1]).sum()}

    def predict(self, batch: DetectionBatch) -> BoxPredictions:
        return self.proposed


def true_boxes_as_proposals(batch: DetectionBatch, objectness: Tensor) -> BoxPredictions:
    return BoxPredictions(
        boxes=batch.boxes,
        probability=torch.nn.functional.one_hot(batch.label.clamp_min(0), 2).float() * 0.8 + 0.1,
        objectness=objectness,
    )


def test_empty_improbable_and_repeated_boxes_do_not_count() -> None:
    batch = boxed_batch(boxed_scene(0, num_boxes=4))
    proposed = true_boxes_as_proposals(batch, torch.tensor([[0.9, 0.05, 0.8, 0.7]]))
    proposed.boxes[0, 2, 2] += 50
    again = BoxPredictions(*(torch.cat([each, each[:, :1]], dim=1) for each in vars(proposed).values()))
    assert kept_boxes(again, batch, RULES).tolist() == [[True, False, False, True, False]]


def test_other_classes_do_not_suppress() -> None:
    batch = boxed_batch(boxed_scene(0, num_boxes=1))
    twice = BoxPredictions(
        boxes=batch.boxes.expand(1, 2, 7),
        probability=torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]),
        objectness=torch.tensor([[0.9, 0.8]]),
    )
    assert kept_boxes(twice, batch, RULES).tolist() == [[True, True]]


def test_every_box_stands_for_every_class_and_perfect_boxes_score_100() -> None:
    batch = boxed_batch(boxed_scene(0, num_boxes=3), boxed_scene(2, num_boxes=2))
    detector = Fixed(true_boxes_as_proposals(batch, torch.full((2, 3), 0.5)))
    boxes, truth = find_boxes(detector, [batch], rules=RULES, device=torch.device("cpu"), precision="fp32")
    assert boxes.score.shape == (5, 2)
    np.testing.assert_allclose(boxes.score.max(1), 0.45, rtol=1e-6)
    assert boxes.scene.tolist() == truth.scene.tolist() == [0, 0, 0, 1, 1]
    assert scores(boxes, truth, threshold=0.5).mean_ap == 100
    assert detector.training


def test_momentum_falls_by_steps_to_its_floor_and_survives_a_reload() -> None:
    batch = boxed_batch(boxed_scene(0))
    schedule = MomentumSchedule(start=0.5, factor=0.5, every=2, floor=0.2)
    detector = Fixed(true_boxes_as_proposals(batch, torch.ones(1, 3)))
    task, seen = Detection(detector, momentum=schedule), []
    for _ in range(5):
        task(batch)
        seen.append(detector.norm.momentum)
        task.after_step()
    assert seen == [0.5, 0.5, 0.25, 0.25, 0.2]
    again = Detection(Fixed(detector.proposed), momentum=schedule)
    again.load_state_dict(task.state_dict())
    again(batch)
    assert again.detector.norm.momentum == 0.2  # type: ignore[attr-defined]


def test_drawing_scenes_again_equals_scoring_copies_of_them() -> None:
    rng = np.random.default_rng(0)
    boxes = found(
        *((int(rng.integers(5)), rng.integers(8) + rng.normal(0, 0.3), rng.random(3).tolist()) for _ in range(60))
    )
    truth = true(*((int(rng.integers(5)), float(place), int(rng.integers(3))) for place in range(8) for _ in range(2)))
    weight = rng.multinomial(6, np.full(6, 1 / 6), size=7)
    sampled = resampled_map(
        match_boxes(boxes, truth), truth, scenes=np.arange(6), weight=weight.astype(np.float64), threshold=0.25
    )
    for row, score in zip(weight, sampled, strict=True):
        copies = [(scene, copy) for scene, times in enumerate(row) for copy in range(times)]
        parts = [(np.flatnonzero(boxes.scene == scene), np.flatnonzero(truth.scene == scene)) for scene, _ in copies]
        here, there = (np.concatenate(each).astype(np.int64) for each in zip(*parts, strict=True))
        number = [np.repeat(np.arange(len(parts)), [len(each[side]) for each in parts]) for side in (0, 1)]
        again = scores(
            FoundBoxes(boxes.boxes[here], boxes.score[here], number[0]),
            TrueBoxes(truth.boxes[there], truth.label[there], number[1]),
        )
        assert score == pytest.approx(again.mean_ap)
    assert len(set(sampled.round(3).tolist())) > 3
