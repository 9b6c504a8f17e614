"""Both stages of the two-stage paper at once (its table 9, "joint training"): alignment and masked distillation."""

import torch
from torch import nn

from pointloom.methods.align import Align
from pointloom.methods.distill import Distill
from pointloom.models.ema import EmaTeacher
from pointloom.structures import AlignBatch, Losses, as_module


class Joint(nn.Module):
    """Align an encoder, and let it learn from a part of every cloud what its own moving average makes of all of it.

    Args:
        align: The first stage.
        distill: The second one; its student is the encoder that is aligned, its teacher the follower's network.
        follower: The moving average of that encoder.
        momentum: Share of the old average that stays at every step.

    Note:
        The paper does not say which teacher there is while stage 1 is not done. A moving average is the usual answer
        where teacher and student begin together; as in stage 2, it is in evaluation mode and sees whole clouds.
    """

    def __init__(self, align: Align, distill: Distill, *, follower: EmaTeacher, momentum: float) -> None:
        super().__init__()
        if distill.encoder is not align.encoder or distill.teacher is not follower.network:
            raise ValueError("the student must be the encoder that is aligned, the teacher its moving average")
        self.align = align
        self.distill = distill
        self.follower = follower
        self.momentum = momentum

    def forward(self, batch: AlignBatch) -> Losses:
        """Sum equations 3 and 6."""
        aligned, distilled = self.align(batch), self.distill(batch.points)
        return {**aligned, **distilled, "loss": torch.stack([aligned["loss"], distilled["loss"]]).sum()}

    def after_step(self) -> None:
        """Move the teacher along."""
        self.follower.update(as_module(self.align.encoder), self.momentum)
