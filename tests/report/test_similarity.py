from itertools import permutations

import numpy as np
import pytest

from pointloom.report.similarity import linear_cka, neighbor_overlap


def unit(feature: np.ndarray) -> np.ndarray:
    return feature / np.linalg.norm(feature, axis=1, keepdims=True)


def test_overlap_counts_the_neighbours_that_both_spaces_share() -> None:
    rng = np.random.default_rng(0)
    first, second = unit(rng.normal(size=(12, 5))), unit(rng.normal(size=(12, 3)))
    shared = 0
    for row in range(12):
        others = [other for other in range(12) if other != row]
        near = [set(sorted(others, key=lambda o: -(space[row] @ space[o]))[:4]) for space in (first, second)]
        shared += len(near[0] & near[1])
    assert neighbor_overlap(first, second, count=4) == pytest.approx(shared / 48)


def test_overlap_is_one_for_rotated_features_and_chance_for_unrelated_ones() -> None:
    rng = np.random.default_rng(1)
    first = unit(rng.normal(size=(200, 8)))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert neighbor_overlap(first, first @ rotation, count=10) == pytest.approx(1.0)
    assert neighbor_overlap(first, unit(rng.normal(size=(200, 8))), count=10) == pytest.approx(10 / 199, abs=0.02)


def hsic_by_definition(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over all ordered quadruples of different objects."""
    terms = [
        first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])
        for i, j, q, r in permutations(range(len(first)), 4)
    ]
    return float(np.mean(terms))


def test_alignment_agrees_with_the_u_statistic_over_all_quadruples() -> None:
    rng = np.random.default_rng(2)
    first = rng.normal(size=(7, 3))
    second = np.column_stack([first[:, 0] + 0.3 * rng.normal(size=7), rng.normal(size=7)])
    kernels = first @ first.T, second @ second.T
    expected = hsic_by_definition(*kernels) / np.sqrt(
        hsic_by_definition(kernels[0], kernels[0]) * hsic_by_definition(kernels[1], kernels[1])
    )
    assert linear_cka(first, second) == pytest.approx(expected)


def test_alignment_ignores_rotation_scale_and_shift_and_is_near_zero_for_unrelated_wide_features() -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(size=(60, 16))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    assert linear_cka(first, 3 * first @ rotation + 5) == pytest.approx(1.0)
    wide = [linear_cka(rng.normal(size=(60, 400)), rng.normal(size=(60, 400))) for _ in range(20)]
    assert abs(np.mean(wide)) < 0.02
