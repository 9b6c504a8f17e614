"""Maxima over the members of a patch, and gradients that touch only the members that won.

bfloat16, which numba does not know, comes as its bits in uint16.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray


def _number(value: Any) -> Any:
    """Return a float32; compiled code only."""
    raise NotImplementedError


@overload(_number, inline="always")
def _number_compiled(value: Any) -> Any:
    def from_bits(value: Any) -> Any:
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    def as_it_is(value: Any) -> Any:
        return value

    return from_bits if value == types.uint16 else as_it_is


def _put(array: Any, place: Any, value: Any) -> None:
    """Store a float32, rounded to nearest (ties to even) where the array holds bfloat16; compiled code only."""
    raise NotImplementedError


@overload(_put, inline="always")
def _put_compiled(array: Any, place: Any, value: Any) -> Any:  # noqa: ARG001 - names of the arguments decide
    def put_number(array: Any, place: Any, value: Any) -> None:
        array[place] = value

    def put_bits(array: Any, place: Any, value: Any) -> None:
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
        array[place] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

    return put_bits if array.dtype == types.uint16 else put_number


@njit(cache=True, nogil=True)
def find_winners(
    feature: NDArray[Any], highest: NDArray[np.float32], winner: NDArray[np.int16]
) -> None:  # pragma: no cover - compiled
    """Fill maxima over the members of ``feature`` (p, k, c) and the first member that has each; NaN wins."""
    P, K, C = feature.shape
    for p in range(P):
        for c in range(C):
            highest[p, c] = _number(feature[p, 0, c])
            winner[p, c] = 0
        for k in range(1, K):
            for c in range(C):
                value = _number(feature[p, k, c])
                if value > highest[p, c] or np.isnan(value):
                    highest[p, c] = value
                    winner[p, c] = k


@njit(cache=True, nogil=True)
def winners_backward(
    gradient: NDArray[np.float32],
    winner: NDArray[np.int16],
    point: NDArray[Any],
    weight: NDArray[np.float32],
    of_point: NDArray[Any],
    of_weight: NDArray[np.float32],
) -> None:  # pragma: no cover - compiled
    """Fill ``of_point`` (p, k, d) and add to ``of_weight`` (c, d) the gradients of maxima of ``weight @ point``."""
    P, C = winner.shape
    K, D = point.shape[1:]
    row = np.empty((K, D), dtype=np.float32)
    total = np.empty((K, D), dtype=np.float32)
    for p in range(P):
        total[:] = 0
        for k in range(K):
            for d in range(D):
                row[k, d] = _number(point[p, k, d])
        for c in range(C):
            k, share = winner[p, c], gradient[p, c]
            for d in range(D):
                total[k, d] += share * weight[c, d]
                of_weight[c, d] += share * row[k, d]
        for k in range(K):
            for d in range(D):
                _put(of_point, (p, k, d), total[k, d])
