"""The symmetric contrastive loss between two sets of unit vectors (CLIP; two-stage paper, equations 1 and 2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops.gather import first_own_row, gather_rows, gather_values, num_processes, sum_over_processes


def contrastive_loss(
    query: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    *,
    scale: Float[Tensor, ""],
    present: Bool[Tensor, " b"],
    identity: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean of both cross-entropies: every query finds its target, every target finds its query.

    Rows without a target take no part: they are no query, no target and no negative. A batch without any target has
    loss 0. Among several processes every row is compared with the rows of all of them, and the mean of the processes'
    gradients is the gradient of the whole batch.

    Args:
        query: Unit vectors with gradient.
        target: Unit vectors of the teacher, without gradient.
        scale: Inverse temperature, the factor of the cosines.
        present: Which rows have a target.
        identity: Rows with equal numbers have the same target, and all of them count as right (soft targets, equal
            shares); None counts the row's own target only.
    """
    first = first_own_row(len(query))
    everyone = gather_values(present)
    numbers = torch.arange(len(everyone), device=query.device) if identity is None else gather_values(identity)
    own = numbers[first : first + len(query)]
    positive = (own.unsqueeze(1) == numbers) & everyone
    share = positive.float() / positive.sum(1, keepdim=True).clamp_min(1)
    weight = present.float()
    total = sum_over_processes(weight.sum()).clamp_min(1) / num_processes()
    with torch.autocast(query.device.type, enabled=False):
        query, target = query.float(), target.float()
        to_target = scale * query @ gather_values(target).T
        to_query = scale * target @ gather_rows(query).T
        loss = sum(-(share * _log_softmax(each, everyone)).sum(1) for each in (to_target, to_query))
        return 0.5 * (loss * weight).sum() / total


def _log_softmax(logits: Float[Tensor, "b a"], present: Bool[Tensor, " a"]) -> Float[Tensor, "b a"]:
    """Return log-probabilities over the present columns; a finite stand-in for -inf keeps gradients finite."""
    return logits.masked_fill(~present, torch.finfo(logits.dtype).min).log_softmax(-1).masked_fill(~present, 0.0)
