"""How far an encoder's space resembles a teacher's: shared nearest neighbours and centred kernel alignment."""

import numpy as np
from jaxtyping import Float

NEIGHBORS = 10


def neighbor_overlap(first: Float[np.ndarray, "t d"], second: Float[np.ndarray, "t c"], *, count: int) -> float:
    """Return the share of an object's ``count`` nearest neighbours that both spaces agree on, averaged over objects.

    Unrelated spaces share ``count / (T - 1)`` on average.

    Args:
        first: Rows of unit length; neighbours are by cosine, ties keep the order of the rows.
        second: The same objects in the other space.
        count: Neighbours per object, below the number of objects.
    """
    shared = _nearest(first, count) & _nearest(second, count)
    return float(shared.sum(axis=1).mean() / count)


def linear_cka(first: Float[np.ndarray, "t d"], second: Float[np.ndarray, "t c"]) -> float:
    """Return the linear centred kernel alignment with unbiased HSIC: 1 for equal geometry, 0 on average for unrelated.

    Kornblith et al., 2019, with the estimator of Song et al., 2012 (equation 5), because the plain one is far above 0
    for unrelated spaces of more dimensions than objects.

    Args:
        first: Features of at least four objects.
        second: Features of the same objects.
    """
    kernels = [features.astype(np.float64) @ features.astype(np.float64).T for features in (first, second)]
    cross, own, other = (_unbiased_hsic(kernels[i], kernels[j]) for i, j in ((0, 1), (0, 0), (1, 1)))
    return float(cross / np.sqrt(own * other)) if own > 0 and other > 0 else 0.0


def _nearest(features: Float[np.ndarray, "t d"], count: int) -> np.ndarray:
    """Return (T, T) bool: column is among the nearest neighbours of row."""
    cosine = features @ features.T
    np.fill_diagonal(cosine, -np.inf)
    chosen = np.zeros(cosine.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-cosine, axis=1, kind="stable")[:, :count], values=True, axis=1)
    return chosen


def _unbiased_hsic(first: Float[np.ndarray, "t t"], second: Float[np.ndarray, "t t"]) -> float:
    count = len(first)
    first, second = first.copy(), second.copy()
    np.fill_diagonal(first, 0)
    np.fill_diagonal(second, 0)
    means = first.sum() * second.sum() / ((count - 1) * (count - 2))
    mixed = 2 / (count - 2) * (first.sum(axis=0) @ second.sum(axis=0))
    return float(((first * second).sum() + means - mixed) / (count * (count - 3)))
