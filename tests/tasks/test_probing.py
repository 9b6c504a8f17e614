"""Protocols on frozen features."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from pointloom.stages.probe import SvmParams
from pointloom.tasks.probing import Split, few_shot_accuracy, few_shot_classes, linear_svm, official_svm, trained_head


def split(*, spread: float = 0.3, classes: int = 4) -> Split:
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(classes, 8))

    def draw(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.repeat(np.arange(classes), per_class)
        return (means[label] + spread * rng.normal(size=(len(label), 8))).astype(np.float32), label

    train, train_label = draw(12)
    test, test_label = draw(6)
    group = np.array([f"g{i // 2}" for i in range(len(train))])
    return Split(train=train, train_label=train_label, train_group=group, test=test, test_label=test_label)


def test_svm_separates_what_is_separable_and_says_its_c() -> None:
    prediction, chosen = linear_svm(split(), grid=[0.01, 1.0], folds=3, seed=0, num_workers=1)
    assert (prediction == split().test_label).mean() > 0.95
    assert chosen in (0.01, 1.0)


def test_of_values_with_the_same_score_the_first_is_taken() -> None:
    far = split(spread=0.01)
    for grid in ([0.3, 1.0, 10.0], [10.0, 1.0, 0.3]):  # every value separates the validation folds
        assert linear_svm(far, grid=grid, folds=3, seed=0, num_workers=1)[1] == grid[0]


def test_single_c_is_used_without_a_search() -> None:
    assert linear_svm(split(), grid=[0.042], folds=3, seed=0, num_workers=1)[1] == 0.042


@pytest.mark.parametrize(("copies", "groups"), [(1, 1), (2, 1), (2, 2)])
def test_classes_of_one_or_two_objects_are_probed_too(copies: int, groups: int) -> None:
    """Thirty meshes with a name of their own each, or two of each: three folds are too many, or none is possible."""
    label = np.repeat(np.arange(6), copies)
    train = np.eye(6, dtype=np.float32)[label]
    group = np.array([f"{name}-{number % groups}" for number, name in enumerate(label)])
    split = Split(train=train, train_label=label, train_group=group, test=train, test_label=label)
    prediction, chosen = linear_svm(split, grid=[0.1, 1.0, 10.0], folds=3, seed=0, num_workers=1)
    assert prediction.tolist() == label.tolist()
    assert chosen == 1.0 if groups == 1 else chosen in (0.1, 1.0, 10.0)


@pytest.mark.parametrize("head", ["linear", "mlp3"])
def test_heads_learn_and_are_deterministic_under_a_seed(head: str) -> None:
    first, second = (trained_head(split(), head=head, num_classes=4, epochs=60, lr=0.01, seed=1) for _ in range(2))
    assert np.array_equal(first, second)
    assert (first == split().test_label).mean() > 0.9


@pytest.mark.parametrize("epochs", [9, 10, 11])
def test_heads_are_trained_in_any_number_of_steps(epochs: int) -> None:
    prediction = trained_head(split(), head="linear", num_classes=4, epochs=epochs, lr=0.1, seed=1)
    assert (prediction == split().test_label).mean() > 0.5


def test_few_shot_counts_only_classes_with_enough_objects() -> None:
    assert few_shot_accuracy(split(), way=4, shot=10, query=6, C=1.0, seed=0) == pytest.approx(100.0, abs=10)
    assert few_shot_accuracy(split(), way=5, shot=10, query=6, C=1.0, seed=0) is None
    assert few_shot_accuracy(split(), way=4, shot=13, query=6, C=1.0, seed=0) is None


def test_classes_with_too_few_objects_on_either_side_and_objects_without_a_class_are_not_eligible() -> None:
    train, test = np.array([0, 0, 1, 2, 2, -1, -1]), np.array([0, 1, 1, -1])
    assert few_shot_classes(train, test, shot=2, query=1) == [0]
    assert few_shot_classes(train, test, shot=1, query=1) == [0, 1]


def test_official_svm_takes_features_as_they_are() -> None:
    """A channel of loud noise spoils the papers' protocol; standardised, it is one channel among others."""
    whole = split(spread=1.0)
    rng = np.random.default_rng(1)

    def noisy(feature: np.ndarray) -> np.ndarray:
        return np.hstack([feature, 1000 * rng.normal(size=(len(feature), 20))]).astype(np.float32)

    loud = replace(whole, train=noisy(whole.train), test=noisy(whole.test))
    assert (official_svm(whole, C=0.012) == whole.test_label).mean() > 0.9
    assert (official_svm(loud, C=0.012) == whole.test_label).mean() < 0.6
    assert (linear_svm(loud, grid=[0.012], folds=2, seed=0, num_workers=1)[0] == whole.test_label).mean() > 0.9


def test_official_svm_has_one_c_and_older_sections_keep_their_digest() -> None:
    assert SvmParams(C=[0.1], folds=2).model_dump() == {"C": [0.1], "folds": 2}
    official = SvmParams(protocol="official", C=[0.012], folds=2)
    assert official.model_dump()["protocol"] == "official"
    with pytest.raises(ValidationError, match=r"one fixed C, got \[0.1, 1.0\]"):
        SvmParams(protocol="official", C=[0.1, 1.0], folds=2)
