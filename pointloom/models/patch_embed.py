"""The mini-PointNet that turns a patch into a token (Point-MAE, section 3.1; first used by Point-BERT)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbed(nn.Module):
    """Embed the points of a patch, pool them, join the pooled vector to every point, embed and pool again.

    Args:
        dim: Token width.
        hidden: Widths of the first two layers; the third has twice the second (128, 256 and 512 in the paper).

    Note:
        The third layer acts on the concatenation [pooled, point]. Its weight is applied in two halves, the pooled one
        once per patch instead of once per point: the same sum, about a sixth less work. The state dict keeps the
        single weight.
    """

    def __init__(self, dim: int, *, hidden: tuple[int, int] = (128, 256)) -> None:
        super().__init__()
        first, second = hidden
        self.first = nn.Linear(3, first)
        self.norm1 = nn.BatchNorm1d(first)
        self.second = nn.Linear(first, second)
        self.third = nn.Linear(2 * second, 2 * second)
        self.norm2 = nn.BatchNorm1d(2 * second)
        self.fourth = nn.Linear(2 * second, dim)

    def forward(self, neighborhood: Float[Tensor, "b g k 3"]) -> Float[Tensor, "b g c"]:
        """Return one token per patch; with batch statistics over all points of all patches while training."""
        B, G, K, _ = neighborhood.shape
        points = neighborhood.reshape(-1, 3)
        points = self.second(F.relu(self.norm1(self.first(points))))  # (B G K, second)
        pooled = points.view(B * G, K, -1).amax(1)
        width = pooled.shape[-1]
        per_patch = F.linear(pooled, self.third.weight[:, :width], self.third.bias)
        per_point = F.linear(points, self.third.weight[:, width:])
        joined = (per_point.view(B * G, K, -1) + per_patch.unsqueeze(1)).flatten(0, 1)
        points = self.fourth(F.relu(self.norm2(joined)))
        return points.view(B, G, K, -1).amax(2)


def init_patch_embed(embed: PatchEmbed) -> None:
    """Draw the weights as the official code does: truncated normal 0.02, zero biases."""
    for layer in (embed.first, embed.second, embed.third, embed.fourth):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        torch.nn.init.zeros_(layer.bias)
