"""Boxes as VoteNet and H3DNet predict them, and the layers that do."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.box_coding import HeadingBins, chosen
from pointloom.models.pointnet2 import SharedMlp
from pointloom.structures import BoxPredictions

SMALLEST_SIZE = 1e-3
"""Metres; predicted lengths are at least this, residuals may call for less than nothing."""


@dataclass(frozen=True)
class Proposals:
    """Boxes as the network says them, before a choice between classes is made.

    Attributes:
        place: Middles of the clusters of votes.
        center: Predicted centres.
        objectness: Logits of nothing and something.
        heading: Logits of the heading's part of the circle.
        heading_residual: Per part, 1 = half a part.
        size: Logits of the size class, which is the object's class.
        size_residual: Per size class, in mean sizes of the class.
        category: Logits of the object's class.
    """

    place: Float[Tensor, "b q 3"]
    center: Float[Tensor, "b q 3"]
    objectness: Float[Tensor, "b q 2"]
    heading: Float[Tensor, "b q h"]
    heading_residual: Float[Tensor, "b q h"]
    size: Float[Tensor, "b q k"]
    size_residual: Float[Tensor, "b q k 3"]
    category: Float[Tensor, "b q k"]

    def boxes(self, mean_sizes: Float[Tensor, "k 3"]) -> BoxPredictions:
        """Choose the most probable heading and size of every box."""
        heading, size = self.heading.argmax(-1), self.size.argmax(-1)
        length = mean_sizes[size] * (1 + chosen(self.size_residual, size))
        turn = HeadingBins(self.heading.shape[-1]).decode(heading, chosen(self.heading_residual, heading))
        return BoxPredictions(
            boxes=torch.cat([self.center, length.clamp_min(SMALLEST_SIZE), turn.unsqueeze(-1)], dim=-1).float(),
            probability=self.category.float().softmax(-1),
            objectness=self.objectness.float().softmax(-1)[..., 1],
        )


class ProposalHead(nn.Module):
    """From a vector per cluster to the numbers that say a box.

    Args:
        dim: Width of the vector.
        hidden: Width of the two layers before the last.
        num_classes: Classes, and sizes.
        num_headings: Parts of the circle.
    """

    def __init__(self, dim: int, *, hidden: int, num_classes: int, num_headings: int) -> None:
        super().__init__()
        self.parts = (2, 3, num_headings, num_headings, num_classes, 3 * num_classes, num_classes)
        self.mlp = SharedMlp(dim, hidden, hidden, bias=True)
        self.last = nn.Linear(hidden, sum(self.parts))

    def forward(self, place: Float[Tensor, "b q 3"], feature: Float[Tensor, "b q c"]) -> Proposals:
        """Return a box per cluster."""
        out = self.last(self.mlp(feature)).float().split(self.parts, dim=-1)
        objectness, offset, heading, heading_residual, size, size_residual, category = out
        return Proposals(
            place=place,
            center=place + offset,
            objectness=objectness,
            heading=heading,
            heading_residual=heading_residual,
            size=size,
            size_residual=size_residual.unflatten(-1, (-1, 3)),
            category=category,
        )
