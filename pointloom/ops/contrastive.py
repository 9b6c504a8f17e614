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
    detached_gather: bool = False,
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
        identity: Rows with equal numbers have the same target, and any of them is a right answer; None counts the
            row's own target only.
        detached_gather: Rows of all processes, this one's too, are constants where targets look for their queries, as
            in ULIP's code: with several processes the encoder then gets about half of its gradient, in another
            direction. One process has nothing to gather.

    Note:
        Several right answers are the logarithm of their summed probability. Soft targets, equal shares of all right
        answers, would be no option at all: for targets that are the same vector they have the value and the gradient
        of the plain loss.
    """
    first = first_own_row(len(query))
    everyone = gather_values(present)
    numbers = torch.arange(len(everyone), device=query.device) if identity is None else gather_values(identity)
    own = numbers[first : first + len(query)]
    positive = (own.unsqueeze(1) == numbers) & everyone
    total = sum_over_processes(present.float().sum()).clamp_min(1) / num_processes()
    with torch.autocast(query.device.type, enabled=False):
        query, target = query.float(), target.float()
        to_target = scale * query @ gather_values(target).T
        to_query = scale * target @ (gather_values(query) if detached_gather else gather_rows(query)).T
        loss = _surprise(to_target, positive, everyone) + _surprise(to_query, positive, everyone)
        return 0.5 * loss.masked_fill(~present, 0.0).sum() / total


def _surprise(
    logits: Float[Tensor, "b a"], positive: Bool[Tensor, "b a"], present: Bool[Tensor, " a"]
) -> Float[Tensor, " b"]:
    """Return minus the log-probability of the right columns; a finite stand-in for -inf keeps gradients finite."""
    lowest = torch.finfo(logits.dtype).min
    everything = logits.masked_fill(~present, lowest).logsumexp(1)
    return everything - logits.masked_fill(~positive, lowest).logsumexp(1)
