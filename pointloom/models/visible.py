"""The visible tokens of clouds side by side, although every cloud has another number of them, and back."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops import gather_points
from pointloom.ops.gather import stack_over_processes
from pointloom.structures import Tokens

COUNTED_ON = ("cpu",)
"""Where visible patches are counted; elsewhere the host would wait for the numbers."""


@dataclass(frozen=True)
class Slots:
    """Where the visible patches of every cloud are; clouds with fewer of them are padded with hidden ones.

    Attributes:
        index: Numbers of patches, the visible ones first, in rising order.
        valid: Which slots hold a visible patch; None where all do.
    """

    index: Int[Tensor, "b t"]
    valid: Bool[Tensor, "b t"] | None


def visible_slots(hidden: Bool[Tensor, "b g"], bounds: tuple[int, int] | None = None) -> Slots:
    """Return as many slots as the cloud with the most visible patches needs, of the clouds of all processes.

    Args:
        hidden: Which patches are hidden.
        bounds: Fewest and most visible patches of a cloud, known without looking. Where they differ and looking is
            cheap, slots are counted nevertheless; None counts them anywhere.
    """
    count = (~hidden).sum(1)
    if bounds is None or (bounds[0] < bounds[1] and hidden.device.type in COUNTED_ON):
        counted = stack_over_processes(torch.tensor(torch.stack(count.aminmax()).tolist()))
        bounds = int(counted[:, 0].min()), int(counted[:, 1].max())
    fewest, most = bounds
    index = hidden.int().argsort(dim=1, stable=True)[:, :most]
    valid = torch.arange(most, device=hidden.device) < count.unsqueeze(1)
    return Slots(index=index, valid=None if fewest == most else valid)


def slots_of(hidden: Bool[Tensor, "b g"], seen: Tokens) -> Slots:
    """Return the slots that an encoder's tokens of the visible patches are in."""
    return Slots(index=hidden.int().argsort(dim=1, stable=True)[:, : seen.tokens.shape[1]], valid=seen.valid)


def put_back(
    background: Float[Tensor, "b g c"], tokens: Float[Tensor, "b t c"], slots: Slots
) -> Float[Tensor, "b g c"]:
    """Return ``background`` with the visible patches replaced by their tokens."""
    tokens = tokens.to(background.dtype)
    if slots.valid is not None:
        tokens = torch.where(slots.valid.unsqueeze(-1), tokens, gather_points(background, slots.index))
    return background.scatter(1, slots.index.unsqueeze(-1).expand_as(tokens), tokens)
