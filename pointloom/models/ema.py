"""A teacher that follows its student: the exponential moving average of the student's weights."""

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import nn


class EmaTeacher(nn.Module):
    """A frozen copy of a network; calling it runs the copy without gradient.

    Args:
        student: What is copied now and followed by ``update``.
        buffers: ``none``: buffers (batch statistics) are the teacher's own; ``copy``: ``update`` takes the student's.
        always_evaluate: The copy stays in evaluation mode (no drop path, running statistics); False: it follows
            ``train`` and ``eval``, so that batch norm uses the batch at hand while training.
    """

    def __init__(self, student: nn.Module, *, buffers: Literal["none", "copy"], always_evaluate: bool) -> None:
        super().__init__()
        self.network = deepcopy(student).requires_grad_(False)
        self.buffers_follow = buffers == "copy"
        self.always_evaluate = always_evaluate
        self.train(student.training)

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Set the mode of the copy, where it may change."""
        super().train(mode)
        self.network.train(mode and not self.always_evaluate)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the copy."""
        return self.network(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move every weight towards the student's: ``momentum`` times the old one plus the rest of the new one.

        Raises:
            ValueError: The momentum is not in 0..1.
        """
        if not 0 <= momentum <= 1:
            raise ValueError(f"the momentum of a teacher is in 0..1, got {momentum}")
        own, new = ([p.detach() for p in module.parameters()] for module in (self.network, student))
        torch._foreach_lerp_(own, new, 1 - momentum)
        if self.buffers_follow:
            for old, value in zip(self.network.buffers(), student.buffers(), strict=True):
                old.copy_(value)
