"""Retrieval against brute force."""

import numpy as np
import pytest

from pointloom.tasks import retrieval
from pointloom.tasks.retrieval import ranks, retrieval_metrics


@pytest.mark.parametrize("block", [3, 1024])
def test_ranks_equal_brute_force_with_several_right_answers(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(7, 5)), rng.normal(size=(20, 5))
    gallery_id = rng.integers(0, 7, 20)
    gallery_id[:7] = np.arange(7)
    expected = []
    for number, vector in enumerate(query):
        order = np.argsort(-(gallery @ vector))
        wrong_before = 0
        for row in order:
            if gallery_id[row] == number:
                break
            wrong_before += 1
        expected.append(1 + wrong_before)
    assert ranks(query, gallery, query_id=np.arange(7), gallery_id=gallery_id).tolist() == expected


def test_encoder_that_maps_all_shapes_to_one_point_comes_out_last() -> None:
    found = ranks(np.eye(4), np.ones((4, 4)), query_id=np.arange(4), gallery_id=np.arange(4))
    assert found.tolist() == [4] * 4


def test_metrics_of_a_hand_computed_case() -> None:
    assert retrieval_metrics(np.array([1, 2, 5, 6, 11])) == {
        "recall@1": 20.0, "recall@5": 60.0, "recall@10": 80.0, "median_rank": 5.0
    }  # fmt: skip
    with pytest.raises(ValueError, match="no query"):
        retrieval_metrics(np.array([], dtype=np.int64))
