"""A surrogate of the mean intersection over union (Berman, Triki and Blaschko, 2018)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def lovasz_softmax(probability: Float[Tensor, "n c"], label: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean over the classes that occur of the Lovász extension of the Jaccard loss.

    For probabilities of 0 and 1 it is one minus the mean IoU of those classes. 0 without points.
    """
    losses = []
    for category in torch.unique(label).tolist():  # as many sorts as classes occur
        foreground = (label == category).to(probability.dtype)
        error, order = (foreground - probability[:, category]).abs().sort(descending=True)
        foreground = foreground[order]
        union = foreground.sum() + (1 - foreground).cumsum(0)
        jaccard = 1 - (foreground.sum() - foreground.cumsum(0)) / union
        losses.append(torch.dot(error, jaccard.diff(prepend=jaccard.new_zeros(1))))
    return torch.stack(losses).mean() if losses else probability.sum() * 0
