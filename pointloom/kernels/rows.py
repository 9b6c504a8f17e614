"""Sums of rows into other rows."""

from typing import Any

from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def add_rows(out: NDArray[Any], target: NDArray[Any], rows: NDArray[Any]) -> None:  # pragma: no cover - compiled
    """Add every one of ``rows`` (n, c) to the row of ``out`` (m, c) that ``target`` (n) names."""
    N, C = rows.shape
    for i in range(N):
        into, row = out[target[i]], rows[i]
        for c in range(C):
            into[c] += row[c]
