"""Batch normalisation and ReLU of the members of patches, in as few passes over memory as possible.

Every member is x + of its patch, normalised per channel over all members of all patches. bfloat16 comes as its bits.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pointloom.kernels.winners import _number, _put

_Floats = NDArray[np.float32]


@njit(cache=True, nogil=True)
def first_member(x: NDArray[Any], patch: _Floats, out: _Floats) -> None:  # pragma: no cover - compiled
    """Fill ``out`` (c) with the first row of ``x`` (p, k, c) + ``patch`` (p, c)."""
    for c in range(len(out)):
        out[c] = _number(x[0, 0, c]) + patch[0, c]


@njit(cache=True, nogil=True)
def moments(
    x: NDArray[Any], patch: _Floats, pivot: _Floats, total: NDArray[np.float64]
) -> None:  # pragma: no cover - compiled
    """Add to ``total`` (2, c) the sums of ``x`` (p, k, c) + ``patch`` (p, c) - ``pivot`` and of its squares."""
    P, K, C = x.shape
    part, square, row = np.empty(C, np.float32), np.empty(C, np.float32), np.empty(C, np.float32)
    for p in range(P):
        part[:] = 0
        square[:] = 0
        for k in range(K):
            for c in range(C):
                row[c] = _number(x[p, k, c])
            for c in range(C):
                value = row[c] + (patch[p, c] - pivot[c])
                part[c] += value
                square[c] += value * value
        for c in range(C):
            total[0, c] += part[c]
            total[1, c] += square[c]


@njit(cache=True, nogil=True)
def normed_relu(
    x: NDArray[Any], patch: _Floats, mean: _Floats, inverse: _Floats, weight: _Floats, bias: _Floats, out: NDArray[Any]
) -> None:  # pragma: no cover - compiled
    """Fill ``out`` with (x + patch - mean) * inverse * weight + bias where positive, else 0; NaN stays."""
    P, K, C = x.shape
    offset, row = np.empty(C, np.float32), np.empty(C, np.float32)
    for p in range(P):
        for c in range(C):
            offset[c] = patch[p, c] - mean[c]
        for k in range(K):
            for c in range(C):
                row[c] = _number(x[p, k, c])
            for c in range(C):
                value = (row[c] + offset[c]) * inverse[c] * weight[c] + bias[c]
                row[c] = np.float32(0.0) if value < 0 else value
            for c in range(C):
                _put(out, (p, k, c), row[c])


@njit(cache=True, nogil=True)
def gradient_sums(
    gradient: NDArray[Any], x: NDArray[Any], patch: _Floats, mean: _Floats, inverse: _Floats, weight: _Floats,
    bias: _Floats, total: NDArray[np.float64],
) -> None:  # pragma: no cover - compiled  # fmt: skip
    """Add to ``total`` (2, c) the gradients of ``weight`` and ``bias``."""
    P, K, C = x.shape
    offset, row, share = np.empty(C, np.float32), np.empty(C, np.float32), np.empty(C, np.float32)
    part, product = np.empty(C, np.float32), np.empty(C, np.float32)
    for p in range(P):
        part[:] = 0
        product[:] = 0
        for c in range(C):
            offset[c] = patch[p, c] - mean[c]
        for k in range(K):
            for c in range(C):
                row[c] = _number(x[p, k, c])
                share[c] = _number(gradient[p, k, c])
            for c in range(C):
                normed = (row[c] + offset[c]) * inverse[c]
                passed = share[c] if normed * weight[c] + bias[c] > 0 else np.float32(0.0)
                part[c] += passed
                product[c] += passed * normed
        for c in range(C):
            total[0, c] += product[c]
            total[1, c] += part[c]


@njit(cache=True, nogil=True)
def input_gradient(
    gradient: NDArray[Any], x: NDArray[Any], patch: _Floats, mean: _Floats, inverse: _Floats, weight: _Floats,
    bias: _Floats, constant: _Floats, slope: _Floats, of_x: NDArray[Any], of_patch: _Floats,
) -> None:  # pragma: no cover - compiled  # fmt: skip
    """Fill the gradients of ``x`` and ``patch``, given those of ``bias`` and ``weight`` per member."""
    P, K, C = x.shape
    offset, row, share = np.empty(C, np.float32), np.empty(C, np.float32), np.empty(C, np.float32)
    part = np.empty(C, np.float32)
    scale = weight * inverse
    for p in range(P):
        part[:] = 0
        for c in range(C):
            offset[c] = patch[p, c] - mean[c]
        for k in range(K):
            for c in range(C):
                row[c] = _number(x[p, k, c])
                share[c] = _number(gradient[p, k, c])
            for c in range(C):  # few arrays per loop: the compiler then uses vector instructions
                normed = (row[c] + offset[c]) * inverse[c]
                share[c] = share[c] if normed * weight[c] + bias[c] > 0 else np.float32(0.0)
                row[c] = normed
            for c in range(C):
                row[c] = (share[c] - constant[c] - row[c] * slope[c]) * scale[c]
            for c in range(C):
                part[c] += row[c]
            for c in range(C):
                _put(of_x, (p, k, c), row[c])
        for c in range(C):
            of_patch[p, c] = part[c]
