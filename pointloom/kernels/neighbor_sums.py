"""Rows of neighbours with something added to each, their weighted sums over channel groups, and the gradients."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Index = NDArray[np.int64]


@njit(cache=True, nogil=True)
def add_rows(feature: _Floats, index: _Index, added: _Floats, out: _Floats) -> None:  # pragma: no cover - compiled
    """Fill ``out`` (q, k, c) with the ``index``-th rows of ``feature`` plus ``added``."""
    Q, K, C = added.shape
    for q in range(Q):
        for k in range(K):
            source = index[q, k]
            for c in range(C):
                out[q, k, c] = feature[source, c] + added[q, k, c]


@njit(cache=True, nogil=True)
def add_rows_backward(gradient: _Floats, index: _Index, of_feature: _Floats) -> None:  # pragma: no cover - compiled
    """Add the rows of ``gradient`` (q, k, c) to the rows of ``of_feature`` that they came from."""
    Q, K, C = gradient.shape
    for q in range(Q):
        for k in range(K):
            target = index[q, k]
            for c in range(C):
                of_feature[target, c] += gradient[q, k, c]


@njit(cache=True, nogil=True)
def weighted_sums(
    value: _Floats, index: _Index, added: _Floats, weight: _Floats, out: _Floats
) -> None:  # pragma: no cover - compiled
    """Add to ``out`` (q, c) the sums over k of (``value`` + ``added``) times ``weight`` (q, k, g), c going round g."""
    Q, K, C = added.shape
    G = weight.shape[2]
    for q in range(Q):
        for k in range(K):
            source = index[q, k]
            for start in range(0, C, G):
                for g in range(G):
                    c = start + g
                    out[q, c] += weight[q, k, g] * (value[source, c] + added[q, k, c])


@njit(cache=True, nogil=True)
def weighted_sums_backward(
    gradient: _Floats, value: _Floats, index: _Index, added: _Floats, weight: _Floats, of_value: _Floats,
    of_added: _Floats, of_weight: _Floats,
) -> None:  # pragma: no cover - compiled  # fmt: skip
    """Add to ``of_value`` and ``of_weight`` (zeros) and fill ``of_added``."""
    Q, K, C = added.shape
    G = weight.shape[2]
    for q in range(Q):
        for k in range(K):
            source = index[q, k]
            for start in range(0, C, G):
                for g in range(G):
                    c = start + g
                    share = weight[q, k, g] * gradient[q, c]
                    of_added[q, k, c] = share
                    of_value[source, c] += share
                    of_weight[q, k, g] += gradient[q, c] * (value[source, c] + added[q, k, c])
