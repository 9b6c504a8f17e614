"""Probing of frozen point features: against brute force, with points that have no label."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mode

from pointloom.tasks.scene_probing import (
    Metric,
    PointFeatures,
    fit_linear_probe,
    gather_superpoints,
    join_superpoints,
    labelled_superpoints,
    superpoint_labels,
    superpoint_means,
)

NAMES: dict[Metric, str] = {"l2": "euclidean", "l1": "cityblock", "cosine": "cosine"}


def blobs(seed: int, count: int = 600) -> PointFeatures:
    """Three classes in five dimensions, ten points per super-point, some points without label."""
    rng = np.random.default_rng(seed)
    of_superpoint = rng.integers(3, size=count // 10)
    superpoint = np.repeat(np.arange(count // 10), 10)
    label = of_superpoint[superpoint]
    feature = 3.0 * np.eye(3, 5)[label] + rng.normal(size=(count, 5))
    return PointFeatures(feature.astype(np.float32), np.where(rng.random(count) < 0.3, -1, label), superpoint)


@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_nearest_superpoint_equals_brute_force(metric: Metric) -> None:
    scenes, test = [blobs(0), blobs(2)], blobs(1)
    means = [np.stack([p.feature[p.superpoint == s].mean(0) for s in range(60)]) for p in (*scenes, test)]
    label = [mode(p.label[(p.superpoint == s) & (p.label >= 0)]).mode for p in scenes for s in range(60)]
    nearest = cdist(means[2], np.concatenate(means[:2]), NAMES[metric]).argmin(1)
    expected = np.array(label)[nearest][test.superpoint]
    np.testing.assert_array_equal(gather_superpoints(scenes, num_classes=3).classify(test, metric=metric), expected)
    np.testing.assert_allclose(superpoint_means(scenes[0]), means[0], rtol=1e-5, atol=1e-6)


def test_probes_of_the_same_scenes_share_their_super_points() -> None:
    scene = blobs(0)
    labelled = PointFeatures(scene.feature, np.maximum(scene.label, 0), scene.superpoint)
    one = labelled_superpoints(labelled, superpoint_means(labelled), num_classes=3)
    first, second = join_superpoints([one]), join_superpoints([one, one])
    assert first.means[0] is second.means[1]


def test_superpoint_without_a_label_gives_no_class_to_others() -> None:
    train, test = blobs(0), blobs(1)
    bare = np.where(train.superpoint < 30, -1, train.label)
    known = superpoint_labels(PointFeatures(train.feature, bare, train.superpoint), num_classes=3)
    assert (known[:30] == -1).all()
    assert (known[30:] >= 0).all()
    kept = train.superpoint >= 30
    half = PointFeatures(train.feature[kept], train.label[kept], train.superpoint[kept] - 30)
    answers = [
        gather_superpoints(scenes, num_classes=3).classify(test, metric="l2")
        for scenes in ([PointFeatures(train.feature, bare, train.superpoint)], [half], [half, half])
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_superpoint_has_the_class_of_most_points_and_of_a_tie_the_lower_one_however_many_classes_there_are() -> None:
    label = np.array([4, 7, 7, -1, 9, 2, 2, 9, -1, 10**9])
    superpoint = np.array([0, 0, 0, 0, 2, 2, 2, 2, 1, 4])
    points = PointFeatures(np.zeros((10, 1), dtype=np.float32), label, superpoint)
    assert superpoint_labels(points, num_classes=10**9 + 1).tolist() == [7, -1, 2, -1, 10**9]


@pytest.mark.parametrize("epochs", [20, 60])
def test_linear_probe_finds_what_is_linear_whatever_the_scale_of_the_features(epochs: int) -> None:
    train, test = blobs(0), blobs(1)
    scale = np.array([1e-3, 1.0, 1e3, 1.0, 1.0], dtype=np.float32)
    found = [
        fit_linear_probe(
            PointFeatures(train.feature * s, train.label, train.superpoint),
            num_classes=3,
            epochs=epochs,
            lr=0.05,
            seed=0,
        ).classify(test.feature * s)
        for s in (np.float32(1.0), scale)
    ]
    known = test.label >= 0
    assert (found[0] == test.label)[known].mean() > 0.85
    assert (found[0] == found[1]).mean() > 0.99


def test_training_scenes_without_any_label_are_refused() -> None:
    train = blobs(0)
    bare = PointFeatures(train.feature, np.full_like(train.label, -1), train.superpoint)
    with pytest.raises(ValueError, match="label"):
        fit_linear_probe(bare, num_classes=3, epochs=1, lr=0.1, seed=0)
    with pytest.raises(ValueError, match="label"):
        gather_superpoints([bare], num_classes=3)
