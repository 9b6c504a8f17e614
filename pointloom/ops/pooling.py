"""Maximum over the points of a patch, with a cheap gradient."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _MaxOverPoints(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor) -> Tensor:
        highest = feature.amax(-2)
        ctx.save_for_backward(feature, highest)
        return highest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        feature, highest = ctx.saved_tensors
        is_highest = (feature - highest.unsqueeze(-2)).sign_().add_(1)  # sign is -1 below the maximum and 0 at it
        share = gradient / is_highest.sum(-2)
        return is_highest.mul_(share.unsqueeze(-2))


def max_over_points(feature: Float[Tensor, "*batch k c"]) -> Float[Tensor, "*batch c"]:
    """Return the maximum over the points of every patch; tied points share the gradient equally.

    Same values and gradients as ``feature.amax(-2)``, whose backward pass counts ties in 64-bit integers and costs
    four times as much on a CPU.
    """
    return _MaxOverPoints.apply(feature)  # type: ignore[no-untyped-call]
