"""Rows of neighbours plus a linear map of where they are, their weighted sums over channels, and the gradients.

The map goes from three numbers per pair to c channels, ``weight`` (3, c); its result is never stored.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Index = NDArray[np.int64]


@njit(cache=True, nogil=True)
def add_rows(
    feature: _Floats, index: _Index, place: _Floats, weight: _Floats, out: _Floats
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` (q, k, c) with the ``index``-th rows of ``feature`` plus ``place`` (q, k, 3) times ``weight``."""
    Q, K, C = out.shape
    wx, wy, wz = weight[0], weight[1], weight[2]
    for q in range(Q):
        for k in range(K):
            row, target = feature[index[q, k]], out[q, k]
            x, y, z = place[q, k, 0], place[q, k, 1], place[q, k, 2]
            for c in range(C):
                target[c] = row[c] + x * wx[c] + y * wy[c] + z * wz[c]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def add_rows_backward(
    gradient: _Floats, index: _Index, place: _Floats, weight: _Floats, of_place: _Floats, of_feature: _Floats,
    of_weight: _Floats,
) -> None:  # pragma: no cover - compiled  # fmt: skip
    """Add to ``of_feature`` and ``of_weight`` (zeros) and fill ``of_place``."""
    Q, K, C = gradient.shape
    wx, wy, wz = weight[0], weight[1], weight[2]
    total, part = np.zeros((3, C)), np.empty((3, C), np.float32)
    for q in range(Q):
        part[:] = 0
        for k in range(K):
            row, target = gradient[q, k], of_feature[index[q, k]]
            x, y, z = place[q, k, 0], place[q, k, 1], place[q, k, 2]
            gx, gy, gz = np.float32(0), np.float32(0), np.float32(0)
            for c in range(C):
                g = row[c]
                target[c] += g
                gx += g * wx[c]
                gy += g * wy[c]
                gz += g * wz[c]
                part[0, c] += g * x
                part[1, c] += g * y
                part[2, c] += g * z
            of_place[q, k, 0], of_place[q, k, 1], of_place[q, k, 2] = gx, gy, gz
        total += part
    of_weight += total


@njit(cache=True, nogil=True)
def weighted_sums(
    value: _Floats, index: _Index, place: _Floats, weight: _Floats, share: _Floats, out: _Floats
) -> None:  # pragma: no cover - compiled
    """Add to ``out`` (q, c) the sums over k of ``add_rows`` times ``share`` (q, k, g), whose g repeat over c."""
    (Q, K, G), C = share.shape, value.shape[1]
    wx, wy, wz = weight[0], weight[1], weight[2]
    wide = np.empty(C, np.float32)
    for q in range(Q):
        target = out[q]
        for k in range(K):
            row = value[index[q, k]]
            x, y, z = place[q, k, 0], place[q, k, 1], place[q, k, 2]
            for start in range(0, C, G):
                for g in range(G):
                    wide[start + g] = share[q, k, g]
            for c in range(C):
                target[c] += wide[c] * (row[c] + x * wx[c] + y * wy[c] + z * wz[c])


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def weighted_sums_backward(
    gradient: _Floats, value: _Floats, index: _Index, place: _Floats, weight: _Floats, share: _Floats,
    of_place: _Floats, of_share: _Floats, of_value: _Floats, of_weight: _Floats,
) -> None:  # pragma: no cover - compiled  # fmt: skip
    """Add to ``of_value``, ``of_weight`` and ``of_share`` (zeros) and fill ``of_place``."""
    (Q, K, G), C = share.shape, value.shape[1]
    wx, wy, wz = weight[0], weight[1], weight[2]
    total, part = np.zeros((3, C)), np.empty((3, C), np.float32)
    wide, product = np.empty(C, np.float32), np.empty(C, np.float32)
    for q in range(Q):
        part[:] = 0
        given = gradient[q]
        for k in range(K):
            row, target, own = value[index[q, k]], of_value[index[q, k]], of_share[q, k]
            x, y, z = place[q, k, 0], place[q, k, 1], place[q, k, 2]
            for start in range(0, C, G):
                for g in range(G):
                    wide[start + g] = share[q, k, g]
            for c in range(C):
                product[c] = given[c] * (row[c] + x * wx[c] + y * wy[c] + z * wz[c])
            for start in range(0, C, G):
                for g in range(G):
                    own[g] += product[start + g]
            gx, gy, gz = np.float32(0), np.float32(0), np.float32(0)
            for c in range(C):
                grad = wide[c] * given[c]
                target[c] += grad
                gx += grad * wx[c]
                gy += grad * wy[c]
                gz += grad * wz[c]
                part[0, c] += grad * x
                part[1, c] += grad * y
                part[2, c] += grad * z
            of_place[q, k, 0], of_place[q, k, 1], of_place[q, k, 2] = gx, gy, gz
        total += part
    of_weight += total
