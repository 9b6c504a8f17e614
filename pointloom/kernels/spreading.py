"""Weighted sums of a few feature rows per point, and their gradients."""

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def weighted_rows(
    feature: NDArray[Any], index: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` (q, c) with sums over k of ``weight`` (q, k) times the ``index``-th row of ``feature``."""
    Q, K = index.shape
    for q in range(Q):
        row = out[q]
        row[:] = 0
        for k in range(K):
            source, w = feature[index[q, k]], weight[q, k]
            for c in range(len(row)):
                row[c] += w * source[c]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def weighted_rows_backward(
    gradient: NDArray[Any],
    feature: NDArray[Any],
    index: NDArray[Any],
    weight: NDArray[Any],
    of_feature: NDArray[Any],
    of_weight: NDArray[Any],
) -> None:  # pragma: no cover - compiled
    """Add the gradient of ``feature`` to ``of_feature`` (zeros) and fill ``of_weight``."""
    Q, K = index.shape
    for q in range(Q):
        row = gradient[q]
        for k in range(K):
            source, w = feature[index[q, k]], weight[q, k]
            target = of_feature[index[q, k]]
            total = w * 0
            for c in range(len(row)):
                target[c] += w * row[c]
                total += source[c] * row[c]
            of_weight[q, k] = total
