"""Compiled kernels on all of torch's threads: they let go of Python's lock, so parts of a batch run side by side."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Result = TypeVar("Result")

_LEAST = 2**17  # operations that are worth a thread: some 0.1 ms, a start takes a fifth of that


def run_parts(work: Callable[[int, int], Result], rows: int, *, cost: int) -> list[Result]:
    """Call ``work(first, end)`` on parts of ``range(rows)``, one per thread of torch, and return what each returns.

    Args:
        work: Must not depend on the other parts, nor write where they do.
        rows: How many there are.
        cost: Operations per row, roughly; parts with too few of them are not made.
    """
    parts = max(1, min(torch.get_num_threads(), rows, rows * cost // _LEAST))
    if parts == 1:
        return [work(0, rows)]
    bounds = [rows * part // parts for part in range(parts + 1)]
    others = [_pool(parts - 1).submit(work, *pair) for pair in pairwise(bounds[1:])]
    return [work(bounds[0], bounds[1]), *(other.result() for other in others)]


def add_parts(work: Callable[..., None], rows: int, *, cost: int, totals: tuple[NDArray[Any], ...]) -> None:
    """As ``run_parts``, for ``work(first, end, *totals)`` that adds anywhere in them: parts have zeros of their own."""

    def add(first: int, end: int) -> tuple[NDArray[Any], ...]:
        own = totals if first == 0 else tuple(np.zeros_like(total) for total in totals)
        work(first, end, *own)
        return own

    for others in run_parts(add, rows, cost=cost)[1:]:
        for total, other in zip(totals, others, strict=True):
            total += other


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
