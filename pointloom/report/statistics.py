"""Means, standard errors and paired bootstrap intervals of accuracies, all in percent."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Shaped


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one number over repeated runs.

    Attributes:
        mean: Mean over the runs.
        std: Sample standard deviation (n - 1); None for a single run.
        count: Number of runs.
    """

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """A paired difference of two accuracies on the same test objects.

    Attributes:
        mean: First minus second, in percentage points, averaged over the shared seeds.
        low: Lower end of the bootstrap interval.
        high: Upper end of the bootstrap interval.
        seeds: Number of shared seeds; 1 means that the interval covers the test objects only.
        objects: Number of shared test objects.
        groups: Number of independent groups of test objects that were resampled.
    """

    mean: float
    low: float
    high: float
    seeds: int
    objects: int
    groups: int

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no proven difference`` when the interval holds 0."""
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "no proven difference"


def spread(values: list[float]) -> Spread | None:
    """Return mean and standard deviation, None for no value."""
    if not values:
        return None
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(np.mean(values)), std=std, count=len(values))


def standard_error(accuracy: float, count: int) -> float:
    """Return one binomial standard error, in points, of an accuracy in percent measured on ``count`` objects."""
    share = accuracy / 100
    return float(100 * np.sqrt(share * (1 - share) / count))


def paired_difference(
    first: Float[np.ndarray, "s t"],
    second: Float[np.ndarray, "s t"],
    *,
    groups: Shaped[np.ndarray, " t"],
    resamples: int,
    confidence: float,
    seed: int,
) -> Difference:
    """Bootstrap the difference of two systems over test groups and seeds.

    Rows are seeds that both systems share, columns are the same test objects in the same order. Every resample draws
    whole groups of objects (near-copies of one shape are not independent) and, independently, seeds; with one seed
    only the objects are drawn. The interval is the percentile interval.

    Args:
        first: 1 where the first system is right, 0 where it is wrong, or the share of point draws in which it is right.
        second: The same for the second system.
        groups: Group of every test object.
        resamples: Number of bootstrap resamples.
        confidence: Coverage of the interval, for example 0.95.
        seed: Seed of the resampling.

    Raises:
        ValueError: Shapes differ or there is nothing to compare.
    """
    if first.shape != second.shape or first.size == 0 or groups.shape != first.shape[1:]:
        raise ValueError(
            f"paired systems have shapes {first.shape} and {second.shape} and {groups.shape} groups, expected equal "
            "(seeds, objects) arrays that are not empty"
        )
    gain = first - second
    _, member = np.unique(groups, return_inverse=True)
    num_seeds, num_groups = len(gain), int(member.max()) + 1
    sums = np.stack([np.bincount(member, weights=row, minlength=num_groups) for row in gain])  # (S, G)
    sizes = np.bincount(member, minlength=num_groups)

    group_weight = _draws(num_groups, resamples, seed)  # (R, G)
    seed_weight = _draws(num_seeds, resamples, seed + 1)  # (R, S)
    totals = (group_weight @ sums.T * seed_weight).sum(axis=1) / num_seeds
    sampled = 100 * totals / (group_weight @ sizes)
    tail = (1 - confidence) / 2
    low, high = np.quantile(sampled, [tail, 1 - tail])
    return Difference(
        mean=float(100 * gain.mean()),
        low=float(low),
        high=float(high),
        seeds=num_seeds,
        objects=gain.shape[1],
        groups=num_groups,
    )


@lru_cache(maxsize=8)
def _draws(count: int, resamples: int, seed: int) -> Float[np.ndarray, "r {count}"]:
    """Return how often each of ``count`` items is drawn in every resample; all comparisons of a report share it."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
