"""Rows of all processes side by side, for losses that compare every row with every other one."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributed as dist


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        return _all_gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.num_rows
        return gradient[start : start + ctx.num_rows]


def gather_rows(rows: Float[Tensor, "b *c"]) -> Float[Tensor, "a *c"]:
    """Concatenate the rows of all processes in order of rank, with gradient; one process keeps its own.

    Every process must have the same number of rows. The backward pass adds the gradients that all processes have for
    a row, so that the mean over processes (as data-parallel training takes it) is the gradient of the whole batch.

    Note:
        Published code gathers without gradient: with more than one process the encoder then gets about half of its
        gradient, in another direction.
    """
    return _GatherRows.apply(rows) if num_processes() > 1 else rows  # type: ignore[no-untyped-call]


def gather_values(rows: Shaped[Tensor, "b *c"]) -> Shaped[Tensor, "a *c"]:
    """Concatenate the rows of all processes without gradient: targets, masks, ids."""
    return _all_gather(rows) if num_processes() > 1 else rows


def sum_over_processes(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Add up a number of all processes, without gradient."""
    if num_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def num_processes() -> int:
    """Return how many processes train together, 1 outside of distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first_own_row(num_rows: int) -> int:
    """Return where the rows of this process begin among those of all."""
    return num_rows * dist.get_rank() if num_processes() > 1 else 0


def _all_gather(rows: Tensor) -> Tensor:
    own = rows.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)
