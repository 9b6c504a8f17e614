"""Weighted sums of a few feature rows per point, and their gradients."""

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def weighted_rows(
    feature: NDArray[Any], index: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` (b, m, c) with sums over k of ``weight`` (b, m, k) times the ``index``-th row of ``feature``."""
    B, M, k = index.shape
    for b in range(B):
        for m in range(M):
            row = out[b, m]
            row[:] = 0
            for j in range(k):
                source, w = feature[b, index[b, m, j]], weight[b, m, j]
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
    B, M, k = index.shape
    for b in range(B):
        for m in range(M):
            row = gradient[b, m]
            for j in range(k):
                source, w = feature[b, index[b, m, j]], weight[b, m, j]
                target = of_feature[b, index[b, m, j]]
                total = w * 0
                for c in range(len(row)):
                    target[c] += w * row[c]
                    total += source[c] * row[c]
                of_weight[b, m, j] = total
