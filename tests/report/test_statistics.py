import numpy as np
import pytest
from scipy import stats

from pointloom.report.sentences import format_difference, format_seconds, format_signed, format_spread, judge
from pointloom.report.statistics import Difference, paired_difference, spread, standard_error


def compare(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, resamples: int = 4000
) -> Difference:
    names = np.arange(first.shape[1]) if groups is None else groups
    return paired_difference(
        first.astype(float), second.astype(float), groups=names, resamples=resamples, confidence=0.95, seed=0
    )


def test_interval_over_objects_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.uniform(size=(1, 200)) < 0.7, rng.uniform(size=(1, 200)) < 0.6
    ours = compare(first, second)
    reference = stats.bootstrap(
        (100 * (first[0].astype(float) - second[0]),), np.mean, n_resamples=4000, method="percentile", random_state=2
    ).confidence_interval
    assert ours.mean == pytest.approx(100 * (first.mean() - second.mean()))
    assert ours.low == pytest.approx(reference.low, abs=0.6)
    assert ours.high == pytest.approx(reference.high, abs=0.6)


def test_interval_over_groups_and_seeds_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 12, size=40)
    first, second = rng.uniform(size=(3, 40)) < 0.7, rng.uniform(size=(3, 40)) < 0.5
    gain = first.astype(float) - second
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    means = []
    for _ in range(4000):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), size=len(members))])
        means.append(100 * gain[rng.integers(0, 3, size=3)][:, drawn].mean())
    ours = compare(first, second, groups)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1.5)
    assert (ours.seeds, ours.objects, ours.groups) == (3, 40, len(members))


def test_copies_of_objects_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.uniform(size=(1, 50)) < 0.7, rng.uniform(size=(1, 50)) < 0.5
    one = compare(first, second)
    copied = compare(np.tile(first, 4), np.tile(second, 4), np.tile(np.arange(50), 4))
    naive = compare(np.tile(first, 4), np.tile(second, 4))
    assert copied.high - copied.low == pytest.approx(one.high - one.low)
    assert naive.high - naive.low < 0.7 * (one.high - one.low)


def test_equal_systems_have_no_proven_difference_and_a_clear_gain_is_better() -> None:
    same = np.ones((2, 30), dtype=bool)
    assert compare(same, same).verdict == "no proven difference"
    assert compare(same, ~same).verdict == "better"
    assert compare(~same, same).verdict == "worse"


def test_interval_that_touches_zero_is_no_proven_difference() -> None:
    for low, high in ((0.0, 5.0), (-5.0, 0.0), (-1.0, 9.0)):
        found = Difference(mean=2.0, low=low, high=high, seeds=3, objects=10, groups=10)
        assert found.verdict == "no proven difference"
    assert judge({"mean": 2.0, "low": -1.0, "high": 9.0, "verdict": found.verdict}) == (
        "+2.0 [−1.0, +9.0] points (no proven difference)"
    )


def test_shapes_that_do_not_match_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 4\)"):
        compare(np.ones((1, 3)), np.ones((1, 4)))


def test_standard_error_of_326_objects_near_65_percent_is_2_6_points() -> None:
    assert standard_error(65.0, 326) == pytest.approx(2.64, abs=0.01)


def test_mean_and_sample_deviation_as_text() -> None:
    found = spread([61.0, 62.0, 63.0])
    assert found is not None
    assert (found.mean, found.std, found.count) == (62.0, 1.0, 3)
    assert format_spread({"mean": 62.04, "std": 1.0, "count": 3}) == "62.0 ± 1.0"
    assert format_spread({"mean": 62.0, "std": None, "count": 1}) == "62.0"
    assert format_spread(None) == "–"
    assert spread([]) is None
    assert spread([5.0]).std is None


def test_texts_of_differences_and_times() -> None:
    assert format_difference({"mean": 5.24, "low": -0.01, "high": 8.3}) == "+5.2 [−0.01, +8.3]"
    assert format_difference({"mean": -3.24, "low": -6.7, "high": -0.0412}) == "−3.2 [−6.7, −0.04]"
    assert format_difference({"mean": 0.04, "low": -1e-9, "high": 0.0}) == "0.0 [0.0, 0.0]"
    assert format_signed(-3.0) == "−3.0"
    assert [format_seconds(value) for value in (None, 3.21, 65.0, 7500.0)] == ["–", "3.2 s", "1 min 05 s", "2 h 05 min"]
