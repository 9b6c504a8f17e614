"""Classification by text against hand-computed cases."""

import numpy as np
import pytest

from pointloom.tasks.text_classification import chance, classify_by_text

CLASS_TEXT = np.eye(4, dtype=np.float32)


def test_scores_of_a_hand_computed_case() -> None:
    embedding = np.array([[9, 1, 0, 2], [0, 1, 2, 3], [0, 3, 1, 2], [5, 1, 2, 3]], dtype=np.float32)
    scores = classify_by_text(embedding, CLASS_TEXT, np.array([0, 1, 1, 1]), candidates=[0, 1, 2, 3])
    assert scores.prediction.tolist() == [0, 3, 1, 0]
    assert {k: hits.tolist() for k, hits in scores.hits.items()} == {
        1: [1, 0, 1, 0], 3: [1, 1, 1, 0], 5: [1, 1, 1, 1]
    }  # fmt: skip
    assert scores.metrics == pytest.approx({"top1": 50.0, "top3": 75.0, "top5": 100.0, "macc": 100 * (1 + 1 / 3) / 2})


def test_only_candidates_are_chosen_from_in_any_order() -> None:
    embedding = np.array([[9, 1, 0, 2], [9, 0, 4, 3]], dtype=np.float32)
    for candidates in ([1, 3], [3, 1]):
        scores = classify_by_text(embedding, CLASS_TEXT, np.array([3, 1]), candidates=candidates)
        assert scores.prediction.tolist() == [3, 3]
        assert scores.metrics["top1"] == 50.0


def test_encoder_that_sees_no_difference_scores_nothing() -> None:
    scores = classify_by_text(np.ones((6, 4), np.float32), CLASS_TEXT, np.arange(6) % 4, candidates=[0, 1, 2, 3])
    assert scores.metrics["top1"] == scores.metrics["top3"] == 0.0


def test_true_class_must_be_a_candidate() -> None:
    with pytest.raises(ValueError, match="every true class must be one"):
        classify_by_text(np.ones((1, 4), np.float32), CLASS_TEXT, np.array([2]), candidates=[0, 1])


def test_chance_is_the_share_of_guesses() -> None:
    assert chance(8) == {"top1": 12.5, "top3": 37.5, "top5": 62.5}
    assert chance(2)["top5"] == 100.0
