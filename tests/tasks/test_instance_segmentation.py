"""Instances: targets, grouping, and average precision by hand-computed cases."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pointloom.tasks.instance_segmentation import (
    THRESHOLDS,
    InstanceHeads,
    Instances,
    PointTargets,
    Scored,
    average_precision,
    group_points_by_shift,
    instance_targets,
    true_instances,
)


def found(*ranges: tuple[int, int, int, float], size: int = 100) -> Instances:
    """Instances from (first point, end, class, score)."""
    number = np.full(size, -1)
    for i, (first, end, _, _) in enumerate(ranges):
        number[first:end] = i
    return Instances(number, np.array([r[2] for r in ranges], dtype=np.int64), np.array([r[3] for r in ranges]))


def scored(predicted: Instances, true: Instances, void: NDArray[np.bool_] | None = None) -> list[Scored]:
    return [Scored(predicted, true, np.zeros(len(true.number), dtype=bool) if void is None else void)]


def ap(scenes: list[Scored], threshold: float = 0.5) -> float:
    return float(average_precision(scenes, classes=[0], threshold=threshold, min_points=5)[0])


def test_shift_leads_to_the_mean_of_the_instance() -> None:
    rng = np.random.default_rng(0)
    coord, instance = rng.random((50, 3)).astype(np.float32), rng.integers(-1, 3, size=50).astype(np.int32)
    shift, has = instance_targets(coord, instance)
    for each in range(3):
        mean = np.broadcast_to(coord[instance == each].mean(0), (int((instance == each).sum()), 3))
        np.testing.assert_allclose((coord + shift)[instance == each], mean, atol=1e-6)
    np.testing.assert_array_equal(has, instance >= 0)
    assert not shift[~has].any()


def test_perfect_instances_score_one_at_every_threshold() -> None:
    true = found((0, 20, 0, 1.0), (30, 60, 0, 1.0))
    for threshold in THRESHOLDS:
        assert ap(scored(true, true), threshold) == 1.0
    assert pytest.approx(np.arange(0.5, 0.95, 0.05)) == THRESHOLDS


def test_one_hit_of_two_is_half() -> None:
    true = found((0, 20, 0, 1.0), (30, 60, 0, 1.0))
    assert ap(scored(found((0, 20, 0, 0.9)), true)) == pytest.approx(0.5)


def test_false_positive_above_the_hit_costs_precision_as_computed_by_hand() -> None:
    # scores 0.9 (wrong), 0.8 (right): points of the curve from the lowest score up: recall 1 at precision 1/2,
    # recall 0 at precision 0, then the end (0, 1); half steps: (1 - 0) / 2 * 1/2 + (1 - 0) / 2 * 0 = 1/4
    true = found((0, 20, 0, 1.0))
    assert ap(scored(found((50, 80, 0, 0.9), (0, 20, 0, 0.8)), true)) == pytest.approx(0.25)
    # the other way round: recall 1 at 1/2, recall 1 at 1, then the end: 0 * 1/2 + 1/2 * 1 + 1/2 * 1 = 1
    assert ap(scored(found((50, 80, 0, 0.7), (0, 20, 0, 0.8)), true)) == pytest.approx(1.0)


def test_iou_must_exceed_the_threshold() -> None:
    true = found((0, 20, 0, 1.0))
    assert ap(scored(found((0, 10, 0, 0.9)), true), 0.5) == 0.0
    assert ap(scored(found((0, 10, 0, 0.9)), true), 0.49) == 1.0


def test_second_match_is_a_false_positive_at_the_lower_score() -> None:
    # both halves have IoU 0.5 with the whole: at 0.25 the better one is right, the other false: as the case above
    true = found((0, 20, 0, 1.0))
    assert ap(scored(found((0, 10, 0, 0.4), (10, 20, 0, 0.9)), true), 0.25) == pytest.approx(1.0)


def test_second_match_of_one_instance_may_be_the_first_of_another() -> None:
    # the second prediction has IoU 4/14 with both: false beside the first one, right for the other; scores 0.9 (right)
    # and 0.8 (one right, one wrong): recall 1 at 2/3, 1/2 at 1, the end: 1/4 * 2/3 + 1/2 * 1 + 1/4 * 1 = 11/12
    true = found((0, 10, 0, 1.0), (10, 20, 0, 1.0))
    assert ap(scored(found((0, 6, 0, 0.9), (6, 14, 0, 0.8)), true), 0.25) == pytest.approx(11 / 12)


def test_prediction_on_void_points_or_on_a_small_instance_does_not_count() -> None:
    true = found((0, 20, 0, 1.0), (90, 93, 0, 1.0))
    wrong = found((0, 20, 0, 0.5), (40, 50, 0, 0.9))
    void = np.zeros(100, dtype=bool)
    void[40:46] = True
    assert ap(scored(wrong, true)) == pytest.approx(0.25)
    assert ap(scored(wrong, true, void)) == pytest.approx(1.0)
    assert ap(scored(found((0, 20, 0, 0.5), (88, 93, 0, 0.9)), true)) == pytest.approx(1.0)  # 3 of 5 points


def test_class_without_true_instances_has_no_score_and_one_without_predictions_has_zero() -> None:
    true = found((0, 20, 1, 1.0))
    scores = average_precision(scored(found(), true), classes=[0, 1], threshold=0.5, min_points=5)
    assert np.isnan(scores[0])
    assert scores[1] == 0.0


def test_points_that_meet_after_the_shift_are_one_instance_of_their_class() -> None:
    rng = np.random.default_rng(0)
    middle = np.array([[0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]])
    which = rng.integers(3, size=300)
    coord = middle[which] + rng.uniform(-0.3, 0.3, (300, 3))
    probability = np.full((300, 3), 0.1)
    probability[np.arange(300), np.where(which == 2, 0, 1)] = 0.8
    shift = middle[which] - coord
    instances = group_points_by_shift(coord, shift, probability, ignored=[0], radius=0.03, smallest=20)
    assert sorted(instances.label) == [1, 1]
    np.testing.assert_allclose(instances.score, 0.8)
    assert (instances.number[which == 2] == -1).all()
    assert len(set(instances.number[which == 0])) == len(set(instances.number[which == 1])) == 1
    unmoved = group_points_by_shift(coord, 0 * shift, probability, ignored=[0], radius=0.001, smallest=20)
    assert len(unmoved.label) == 0


def test_large_instance_that_meets_in_one_point_does_not_make_all_pairs_of_its_points() -> None:
    rng = np.random.default_rng(0)
    middle = np.repeat([[0.0, 0, 0], [1, 0, 0]], 60_000, axis=0)  # all pairs would be 58 GB
    coord = middle + rng.uniform(-0.3, 0.3, middle.shape)
    shift = middle - coord + rng.normal(scale=0.005, size=middle.shape)
    found = group_points_by_shift(
        coord, shift, np.tile([0.0, 1.0], (len(coord), 1)), ignored=(), radius=0.05, smallest=100
    )  # fmt: skip
    np.testing.assert_array_equal(found.number, np.repeat([0, 1], 60_000))


def test_true_instances_leave_unlabelled_points_out() -> None:
    segment = np.array([2, 2, -1, 3, 3, -1])
    instance = np.array([7, 7, 7, 9, 9, 4])
    true = true_instances(segment, instance)
    np.testing.assert_array_equal(true.number, [0, 0, -1, 1, 1, -1])
    np.testing.assert_array_equal(true.label, [2, 3])


def test_heads_learn_what_the_features_tell_and_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    feature = torch.randn(200, 8)
    segment = (feature[:, 0] > 0).long()
    batch = PointTargets(feature, segment.where(feature[:, 1] > -1, -1), feature[:, 2:5], feature[:, 5] > -1)
    heads = InstanceHeads(8, num_classes=2)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = heads(batch)["loss"]
        loss.backward()
        assert all(parameter.grad is not None for parameter in heads.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_scene_without_instances_has_no_shift_loss() -> None:
    heads = InstanceHeads(4, num_classes=2)
    batch = PointTargets(torch.randn(9, 4), torch.zeros(9).long(), torch.zeros(9, 3), torch.zeros(9, dtype=torch.bool))
    losses = {name: value.detach() for name, value in heads(batch).items()}
    assert float(losses["distance"]) == float(losses["direction"]) == 0.0
