import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pointloom.report.embedding import embed
from pointloom.report.inputs import ResultRecord
from pointloom.report.retrieval import Gallery, load_gallery, nearest, pick_queries, retrieval_scores


def unit(feature: np.ndarray) -> np.ndarray:
    return feature / np.linalg.norm(feature, axis=1, keepdims=True)


def gallery(label: list[int], seed: int = 0) -> Gallery:
    rng = np.random.default_rng(seed)
    names = np.array([f"o{number}" for number in range(len(label))])
    return Gallery(uid=names, label=np.array(label), feature=unit(rng.normal(size=(len(label), 4))), split="test")


def test_mean_average_precision_agrees_with_scikit_learn() -> None:
    found = gallery([0, 0, 0, 1, 1, 2, 2, 2, 1, 0, 3])
    expected = []
    for query in range(10):  # the class of the last object has no other member: it is no query
        others = np.arange(11) != query
        similarity = found.feature[others] @ found.feature[query]
        expected.append(average_precision_score(found.label[others] == found.label[query], similarity))
    scores = retrieval_scores(found)
    assert scores is not None
    assert scores["queries"] == 10
    assert scores["map"] == pytest.approx(100 * np.mean(expected))


def test_neighbours_are_sorted_by_cosine_and_leave_out_the_query() -> None:
    feature = unit(np.array([[1, 0], [1, 0.1], [0, 1], [1, 1]], dtype=float))
    found = Gallery(uid=np.array(list("abcd")), label=np.zeros(4, int), feature=feature, split="test")
    assert nearest(found)[0].tolist() == [1, 3, 2]


def test_queries_are_seeded_and_of_different_classes_first() -> None:
    found = gallery([0] * 20 + [1] * 2 + [2])
    queries = pick_queries(found, count=3, seed=1)
    assert sorted(found.label[queries].tolist()) == [0, 1, 2]
    assert queries == pick_queries(found, count=3, seed=1)


def test_gallery_holds_test_objects_standardised_on_the_others() -> None:
    rng = np.random.default_rng(0)
    arrays = {"uid": np.array([f"o{i}" for i in range(30)]), "label": np.arange(30) % 3}
    arrays |= {
        "split": np.array(["train"] * 20 + ["test"] * 10),
        "feature": rng.normal(5, 3, size=(30, 6)).astype("f4"),
    }
    found = load_gallery(ResultRecord(name="x", card={}, features=arrays), limit=8, seed=0)
    assert found is not None
    assert len(found.uid) == 8
    assert set(found.uid.tolist()) <= {f"o{i}" for i in range(20, 30)}
    train = arrays["feature"][:20].astype(float)
    expected = unit((arrays["feature"] - train.mean(axis=0)) / train.std(axis=0))
    np.testing.assert_allclose(found.feature, expected[[int(uid[1:]) for uid in found.uid]], atol=1e-6)


def test_unlabelled_objects_have_neighbours_and_no_scores() -> None:
    found = gallery([-1] * 6)
    assert retrieval_scores(found) is None
    assert len(pick_queries(found, count=4, seed=0)) == 4


def test_embedding_is_seeded_and_separates_far_clusters() -> None:
    rng = np.random.default_rng(0)
    feature = unit(np.concatenate([rng.normal([5, 0, 0], 0.1, (20, 3)), rng.normal([0, 5, 0], 0.1, (20, 3))]))
    found = Gallery(uid=np.arange(40).astype(str), label=np.repeat([0, 1], 20), feature=feature, split="test")
    place = embed(found, seed=0)
    np.testing.assert_array_equal(place, embed(found, seed=0))
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(axis=1) // 20 == found.label).all()
