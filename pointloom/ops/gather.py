"""What the rows of several processes have to know of each other, so that together they are one batch.

Every function costs nothing, and changes nothing, where one process trains alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch import distributed as dist


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = row_counts(len(rows))
        start = sum(counts[: dist.get_rank()])
        ctx.own = slice(start, start + len(rows))
        return _all_gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[ctx.own]


def gather_rows(rows: Float[Tensor, "b *c"]) -> Float[Tensor, "a *c"]:
    """Concatenate the rows of all processes in order of rank, with gradient; one process keeps its own.

    The backward pass adds the gradients that all processes have for a row, so that the mean over processes (as
    data-parallel training takes it) is the gradient of the whole batch.

    Note:
        Published code gathers without gradient: with more than one process the encoder then gets about half of its
        gradient, in another direction.
    """
    return _GatherRows.apply(rows) if num_processes() > 1 else rows  # type: ignore[no-untyped-call]


def gather_values(rows: Shaped[Tensor, "b *c"]) -> Shaped[Tensor, "a *c"]:
    """Concatenate the rows of all processes without gradient: targets, masks, ids."""
    return _all_gather(rows, row_counts(len(rows))) if num_processes() > 1 else rows


def own_rows(draw: Callable[[int], Tensor], num_rows: int) -> Tensor:
    """Return this process's rows of random numbers that are drawn for the rows of all processes.

    Every process draws all of them and keeps its own, so that the generators of all processes stay in step, and the
    rows are those that one process would have drawn for the whole batch.

    Args:
        draw: Draws numbers for so many rows.
        num_rows: Rows of this process.
    """
    if num_processes() == 1:
        return draw(num_rows)
    counts = row_counts(num_rows)
    start = sum(counts[: dist.get_rank()])
    return draw(sum(counts))[start : start + num_rows]


def share_of_mean(mean: Float[Tensor, ""], *, count: int | Int[Tensor, ""]) -> Float[Tensor, ""]:
    """Weight the mean over this process's items so that the mean over processes is the mean over all items.

    Args:
        mean: Mean over the items of this process.
        count: How many these are.
    """
    if num_processes() == 1:
        return mean
    own = torch.zeros((), device=mean.device) + count
    return mean * (own * num_processes() / sum_over_processes(own).clamp_min(1))


def sum_over_processes(value: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Add up numbers of all processes, without gradient."""
    if num_processes() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def max_over_processes(value: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """Return the largest of every number over the processes, without gradient."""
    if num_processes() > 1:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def stack_over_processes(value: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "w *any"]:
    """Return the numbers of all processes, of the same shape in all of them, in order of rank, without gradient."""
    if num_processes() == 1:
        return value.unsqueeze(0)
    own = value.detach().contiguous()
    parts = [torch.empty_like(own) for _ in range(num_processes())]
    dist.all_gather(parts, own)
    return torch.stack(parts)


def row_counts(num_rows: int) -> list[int]:
    """Return how many rows every process has; the numbers travel between hosts and never wait for a GPU."""
    return stack_over_processes(torch.tensor(num_rows)).tolist()


def num_processes() -> int:
    """Return how many processes train together, 1 outside of distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def first_own_row(num_rows: int) -> int:
    """Return where the rows of this process begin among those of all."""
    return sum(row_counts(num_rows)[: dist.get_rank()]) if num_processes() > 1 else 0


def _all_gather(rows: Tensor, counts: list[int]) -> Tensor:
    """Concatenate the rows of all processes, of which each may have another number: shorter ones are padded."""
    own = rows.detach().contiguous()
    if len(own) < max(counts):
        own = torch.cat([own, own.new_zeros(max(counts) - len(own), *own.shape[1:])])
    parts = [torch.empty_like(own) for _ in counts]
    dist.all_gather(parts, own)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
