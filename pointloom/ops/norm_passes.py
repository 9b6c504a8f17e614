"""The passes of a fused batch normalisation and ReLU over the members of patches, on all of torch's threads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.kernels import normed as kernels
from pointloom.ops.threads import run_parts

_Array = NDArray[Any]
_Floats = NDArray[np.float32]
Scale = tuple[_Floats, _Floats, _Floats, _Floats]
"""Mean, inverse deviation, weight and bias per channel."""


def moments(x: _Array, patch: _Floats, mean: _Floats, variance: _Floats) -> None:
    """Fill mean and biased variance per channel of ``x`` (p, k, c), bfloat16 as its bits, plus ``patch`` (p, c)."""
    pivot = np.empty_like(mean)
    kernels.first_member(x, patch, pivot)

    def add(first: int, end: int) -> NDArray[np.float64]:
        total = np.zeros((2, len(mean)))
        kernels.moments(x[first:end], patch[first:end], pivot, total)
        return total

    shift, square = np.sum(run_parts(add, len(x), cost=x[0].size), axis=0) / (len(x) * x.shape[1])
    mean[:] = pivot + shift
    variance[:] = np.maximum(square - shift * shift, 0.0)


def normed_relu(x: _Array, patch: _Floats, scale: Scale, out: _Array) -> None:
    """Fill ``out`` with the ReLU of what is normalised."""

    def fill(first: int, end: int) -> None:
        kernels.normed_relu(x[first:end], patch[first:end], *scale, out[first:end])

    run_parts(fill, len(x), cost=x[0].size)


def gradient_sums(gradient: _Array, x: _Array, patch: _Floats, scale: Scale) -> NDArray[np.float64]:
    """Return the gradients of weight and bias (2, c)."""

    def add(first: int, end: int) -> NDArray[np.float64]:
        total = np.zeros((2, x.shape[2]))
        kernels.gradient_sums(gradient[first:end], x[first:end], patch[first:end], *scale, total)
        return total

    return np.sum(run_parts(add, len(x), cost=2 * x[0].size), axis=0)


def input_gradient(  # noqa: PLR0917 - the kernel's order
    gradient: _Array, x: _Array, patch: _Floats, scale: Scale, sums: NDArray[np.float64], of_x: _Array,
    of_patch: _Floats,
) -> None:  # fmt: skip
    """Fill the gradients of ``x`` and ``patch``, given what ``gradient_sums`` returns."""
    constant, slope = (sums[::-1] / (len(x) * x.shape[1])).astype(np.float32)

    def fill(first: int, end: int) -> None:
        rows = gradient[first:end], x[first:end], patch[first:end]
        kernels.input_gradient(*rows, *scale, constant, slope, of_x[first:end], of_patch[first:end])

    run_parts(fill, len(x), cost=2 * x[0].size)
