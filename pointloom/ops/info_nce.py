"""Every row finds its own target among those of all rows (InfoNCE), in linear memory."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 1024


def info_nce(query: Float[Tensor, "n d"], target: Float[Tensor, "n d"], *, temperature: float) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of ``query @ target.T / temperature`` with the diagonal as right answers.

    Only ``query`` has a gradient. Similarities exist for a few rows at a time, forward and backward: the gradient is
    computed along with the loss.

    Args:
        query: Vectors with gradient, usually of unit length.
        target: The vector that each should find.
        temperature: Above 0.

    Raises:
        ValueError: The temperature is not above 0, or there are no rows.
    """
    if not temperature > 0 or len(query) == 0:
        raise ValueError(f"InfoNCE needs rows and a temperature above 0, got {len(query)} and {temperature}")
    return _InfoNce.apply(query.float(), target.detach().float(), temperature)  # type: ignore[no-untyped-call]


class _InfoNce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, target: Tensor, temperature: float) -> Tensor:
        loss, gradient = query.new_zeros(()), torch.empty_like(query)
        with torch.autocast(query.device.type, enabled=False):
            for start in range(0, len(query), _BLOCK):
                part = query[start : start + _BLOCK]
                logits = part @ target.T / temperature
                own = logits.diagonal(start)
                total = logits.logsumexp(1)
                loss += (total - own).sum()
                share = logits.sub_(total.unsqueeze(1)).exp_()
                share.diagonal(start).sub_(1)
                gradient[start : start + _BLOCK] = share @ target
        ctx.save_for_backward(gradient.div_(temperature * len(query)))
        return loss / len(query)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (of_query,) = ctx.saved_tensors
        return gradient * of_query, None, None
