import numpy as np
import pytest

from pointloom.data.shards import ObjectStore
from pointloom.report.classes import confusions, worst_confusions
from pointloom.report.inputs import ResultRecord
from pointloom.report.outcomes import (
    BootstrapSettings,
    Outcomes,
    class_accuracy,
    compare,
    compare_episodes,
    confusion_matrix,
    select_outcomes,
)
from tests.report.fixtures import write_dataset

SETTINGS = BootstrapSettings(resamples=500, confidence=0.95, seed=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("store") / "objects"
    write_dataset(folder, train=2, test=4, num_points=32, labelled=True, failures=False)
    return ObjectStore(folder)


def outcomes(uid: list[str], label: list[int], prediction: list[list[int]], seed: list[int]) -> Outcomes:
    answers, truth = np.array(prediction), np.array(label)
    correct = (answers == truth).astype(float)
    return Outcomes(uid=np.array(uid), label=truth, prediction=answers, correct=correct, seed=np.array(seed))


def test_comparison_pairs_objects_by_name_and_seeds_by_number(store: ObjectStore) -> None:
    uid = store.uids[store.rows("test")][:4].tolist()
    first = outcomes(uid, [0, 1, 0, 1], [[0, 1, 0, 1], [0, 0, 0, 0]], [5, 7])
    second = outcomes(uid[::-1], [1, 0, 1, 0], [[0, 0, 0, 0], [1, 1, 0, 0]], [9, 5])
    # Only seed 5 is shared: first is right on all four; second, back in first's order, on objects 2 and 3 alone.
    found = compare(first, second, store=store, bootstrap=SETTINGS)
    assert found is not None
    assert (found["seeds"], found["objects"]) == (1, 4)
    assert found["mean"] == pytest.approx(100 * (4 - 2) / 4)


def test_nothing_shared_is_no_comparison(store: ObjectStore) -> None:
    first, second = outcomes(["a"], [0], [[0]], [0]), outcomes(["b"], [0], [[0]], [0])
    assert compare(first, second, store=store, bootstrap=SETTINGS) is None
    assert compare(first, None, store=store, bootstrap=SETTINGS) is None


def test_shares_of_point_draws_are_used_for_single_accuracy_and_not_for_votes() -> None:
    arrays = {
        "uid": np.array(["a", "b"]),
        "label": np.array([0, 1]),
        "seed": np.array([0]),
        "fraction": np.array([0.1]),
    }
    arrays |= {
        "prediction": np.array([[0, 0]]),
        "prediction_vote": np.array([[0, 1]]),
        "correct": np.array([[0.9, 0.4]]),
    }
    result = ResultRecord(name="x", card={}, predictions=arrays)
    single, vote = select_outcomes(result, 0.1), select_outcomes(result, 0.1, vote=True)
    assert single is not None
    assert vote is not None
    assert single.correct.tolist() == [[0.9, 0.4]]
    assert vote.correct.tolist() == [[1.0, 1.0]]
    assert select_outcomes(result, 1.0) is None
    assert select_outcomes(result, "svm") is None


def test_few_shot_episodes_are_paired_by_number() -> None:
    ours = [{"seed": number, "oa": 60.0 + number} for number in range(8)]
    theirs = [{"seed": number, "oa": 50.0 + number} for number in range(3, 12)]
    found = compare_episodes(ours, theirs, bootstrap=SETTINGS)
    assert found is not None
    assert (found["mean"], found["objects"], found["verdict"]) == (pytest.approx(10.0), 5, "better")
    assert compare_episodes(ours[:4], theirs, bootstrap=SETTINGS) is None


def test_class_accuracy_and_confusion_of_a_hand_computed_case() -> None:
    found = outcomes(["a", "b", "c"], [0, 0, 2], [[0, 1, 2], [0, 0, 1]], [0, 1])
    np.testing.assert_allclose(class_accuracy(found, 4), [75, np.nan, 50, np.nan])
    np.testing.assert_allclose(
        confusion_matrix(found, 4), [[1.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 0]]
    )
    assert confusions({"x": found}, 4)["x"][0] == [1.5, 0.5, 0, 0]
    mistakes = worst_confusions({"x": found}, ("a", "b", "c", "d"))["x"]
    assert [(cell["true"], cell["predicted"]) for cell in mistakes] == [("a", "b"), ("c", "b")]
