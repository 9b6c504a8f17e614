"""Retrieval of shapes by a sentence or a picture."""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

RECALL_AT = (1, 5, 10)
BLOCK = 1024


def ranks(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "a d"],
    *,
    query_id: Int[np.ndarray, " q"],
    gallery_id: Int[np.ndarray, " a"],
) -> NDArray[np.int64]:
    """Return the rank, from 1, of the best right answer of every query.

    Answers with the number of the query are right; every wrong answer that is at least as near as the best right one
    stands before it, so that an encoder that maps all shapes to one point comes out last.

    Args:
        query: Unit vectors of sentences or pictures.
        gallery: Unit vectors of shapes in the same space.
        query_id: What each query asks for; at least one shape has that number.
        gallery_id: What each shape is.
    """
    found = []
    for start in range(0, len(query), BLOCK):
        similarity = query[start : start + BLOCK] @ gallery.T
        right = query_id[start : start + BLOCK, None] == gallery_id
        best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
        found.append(1 + ((similarity >= best) & ~right).sum(1))
    return np.concatenate(found).astype(np.int64) if found else np.empty(0, dtype=np.int64)


def retrieval_metrics(rank: Int[np.ndarray, " q"]) -> dict[str, float]:
    """Return ``recall@1``, ``recall@5`` and ``recall@10`` in percent, and the median rank.

    Raises:
        ValueError: There is no query.
    """
    if len(rank) == 0:
        raise ValueError("there is no query to retrieve with")
    metrics = {f"recall@{k}": 100.0 * float((rank <= k).mean()) for k in RECALL_AT}
    return metrics | {"median_rank": float(np.median(rank))}
