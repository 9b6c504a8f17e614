"""Exact attention within a window that slides along a sequence, for sequences of different lengths."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pointloom.ops.gather import own_rows

_CHUNK = 512  # queries that are answered at once


def window_attention(
    query: Float[Tensor, "n h d"],
    key: Float[Tensor, "n h d"],
    value: Float[Tensor, "n h d"],
    offset: Int[Tensor, " s"],
    *,
    reach: int,
    dropout: float = 0.0,
) -> Float[Tensor, "n h d"]:
    """Let every element attend to those at most ``reach`` places before or behind it in its own sequence.

    Memory beside input and output is that of a chunk of queries times the keys that it can reach. Torch has no CPU
    kernel that drops attention weights without keeping them for the backward pass: there they are computed again.

    Args:
        query: One vector per head and element, the sequences one after the other.
        key: As ``query``.
        value: As ``query``.
        offset: Where each sequence ends.
        reach: Half the window (512 for a window of 1,024).
        dropout: Share of attention weights that are dropped; which ones does not depend on the process that has them.
    """
    attend: Callable[..., Tensor] = _attend
    if dropout > 0 and torch.is_grad_enabled() and query.device.type == "cpu":
        attend = partial(checkpoint, _attend, use_reentrant=False)
    seeds = own_rows(lambda rows: torch.randint(2**62, (rows,)), len(offset)).tolist() if dropout > 0 else None
    parts, start = [], 0
    for number, end in enumerate(offset.tolist()):  # sequences are ragged
        with _drawing_from(seeds[number], query.device) if seeds else nullcontext():
            for first in range(start, end, _CHUNK):
                last = min(first + _CHUNK, end)
                low, high = max(start, first - reach), min(end, last + reach)
                parts.append(attend(query[first:last], key[low:high], value[low:high], first - low, reach, dropout))
        start = end
    return torch.cat(parts)


@contextmanager
def _drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed in the block, and go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _attend(  # noqa: PLR0917
    query: Float[Tensor, "m h d"],
    key: Float[Tensor, "n h d"],
    value: Float[Tensor, "n h d"],
    lead: int,
    reach: int,
    dropout: float,
) -> Float[Tensor, "m h d"]:
    """Attend from queries of which the first stands at place ``lead`` of the keys."""
    M, N = len(query), len(key)
    mask = None
    if max(lead + M, N - lead) - 1 > reach:
        place = torch.arange(lead, lead + M, device=query.device)
        mask = (place[:, None] - torch.arange(N, device=query.device)).abs() <= reach
    q, k, v = (rows.transpose(0, 1).unsqueeze(0) for rows in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)[0].transpose(0, 1)
