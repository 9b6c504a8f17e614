"""Attention between listed pairs of points: any point may look at any number of others, memory follows the pairs."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 2**17  # pairs whose vectors exist at once


class _PairDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, left_row: Tensor, right_row: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, left_row, right_row)
        return _dots(left, right, left_row, right_row)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        left, right, left_row, right_row = ctx.saved_tensors
        to_left = _sums(gradient, right, left_row, right_row, len(left))
        return to_left, _sums(gradient, left, right_row, left_row, len(right)), None, None


class _PairSums(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, weight: Tensor, value: Tensor, row: Tensor, value_row: Tensor, num_rows: int
    ) -> Tensor:
        ctx.save_for_backward(weight, value, row, value_row)
        return _sums(weight, value, row, value_row, num_rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, value, row, value_row = ctx.saved_tensors
        to_value = _sums(weight, gradient, value_row, row, len(value))
        return _dots(gradient, value, row, value_row), to_value, None, None, None


def pair_dots(
    left: Float[Tensor, "p h d"],
    right: Float[Tensor, "q h d"],
    left_row: Int[Tensor, " m"],
    right_row: Int[Tensor, " m"],
) -> Float[Tensor, "m h"]:
    """Return the dot product of every pair, head by head, without keeping the vectors of the pairs.

    Args:
        left: One vector per head and point.
        right: As ``left``, of the same or other points.
        left_row: Which row of ``left`` a pair has.
        right_row: Which row of ``right``.
    """
    return _PairDots.apply(left, right, left_row, right_row)  # type: ignore[no-untyped-call]


def pair_sums(
    weight: Float[Tensor, "m h"],
    value: Float[Tensor, "q h d"],
    row: Int[Tensor, " m"],
    value_row: Int[Tensor, " m"],
    num_rows: int,
) -> Float[Tensor, "{num_rows} h d"]:
    """Return for every row the weighted sum of the values that it is paired with, head by head.

    Args:
        weight: Of every pair.
        value: One vector per head and point.
        row: Which sum a pair adds to.
        value_row: Which row of ``value`` it adds.
        num_rows: Number of sums; 0 where nothing is added.
    """
    return _PairSums.apply(weight, value, row, value_row, num_rows)  # type: ignore[no-untyped-call]


def pair_softmax(logit: Float[Tensor, "m h"], row: Int[Tensor, " m"], num_rows: int) -> Float[Tensor, "m h"]:
    """Return weights that add up to 1 over the pairs of every row, head by head."""
    wide = row.unsqueeze(1).expand_as(logit)
    top = logit.new_full((num_rows, logit.shape[1]), -torch.inf).scatter_reduce(0, wide, logit.detach(), "amax")
    raised = (logit - top.index_select(0, row)).exp()
    total = logit.new_zeros(num_rows, logit.shape[1]).index_add(0, row, raised)
    return raised / total.index_select(0, row)


def _dots(left: Tensor, right: Tensor, left_row: Tensor, right_row: Tensor) -> Tensor:
    found = left.new_empty(len(left_row), left.shape[1])
    for start in range(0, len(left_row), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = (left[left_row[part]] * right[right_row[part]]).sum(-1)
    return found


def _sums(weight: Tensor, value: Tensor, row: Tensor, value_row: Tensor, num_rows: int) -> Tensor:
    total = value.new_zeros(num_rows, *value.shape[1:])
    for start in range(0, len(row), _CHUNK):
        part = slice(start, start + _CHUNK)
        total.index_add_(0, row[part], weight[part].unsqueeze(-1) * value[value_row[part]])
    return total
