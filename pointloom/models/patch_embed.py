"""The mini-PointNet that turns a patch, of points or of finer tokens, into a token (Point-MAE, section 3.1)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops import linear_max, linear_norm_relu, norm_linear_max


class PatchEmbed(nn.Module):
    """Embed the points of a patch, pool them, join the pooled vector to every point, embed and pool again.

    Args:
        dim: Token width.
        hidden: Widths of the first two layers; the third has twice the second (128, 256 and 512 in the paper).
        channels: Width of what a patch consists of: 3 for points, more for tokens that are merged.

    Note:
        Exact rewritings save most of the work; the state dict keeps the weights of the paper. The third
        layer acts on [pooled, point], so its pooled half is applied once per patch instead of once per point. Its
        point half and the second layer follow each other without a non-linearity and become one matrix. Biases in
        front of a maximum or of the concatenation are added once per patch. The first layer and its batch norm become
        one layer (``linear_norm_relu``). Layers in front of a maximum get gradients only from the points that won
        (``linear_max``). Patches whose token nobody wants are left out behind the second batch norm, which sees them
        as in the official code.
    """

    def __init__(self, dim: int, *, hidden: tuple[int, int] = (128, 256), channels: int = 3) -> None:
        super().__init__()
        first, second = hidden
        self.first = nn.Linear(channels, first)
        self.norm1 = nn.BatchNorm1d(first)
        self.second = nn.Linear(first, second)
        self.third = nn.Linear(2 * second, 2 * second)
        self.norm2 = nn.BatchNorm1d(2 * second)
        self.fourth = nn.Linear(2 * second, dim)

    def forward(
        self, neighborhood: Float[Tensor, "b g k d"], kept: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b _ c"]:
        """Return one token per patch; with batch statistics over all points of all patches while training.

        Args:
            neighborhood: Members of every patch.
            kept: Numbers of the patches of each cloud whose tokens are wanted, each once; None for all.
        """
        B, G, K, D = neighborhood.shape
        points = linear_norm_relu(neighborhood.reshape(B * G, K, D), self.first, self.norm1)
        pooled = linear_max(points, self.second.weight) + self.second.bias
        width = pooled.shape[-1]
        weight_pooled, weight_point = self.third.weight[:, :width], self.third.weight[:, width:]
        with torch.autocast(neighborhood.device.type, enabled=False):
            folded = weight_point @ self.second.weight
            bias = self.third.bias + weight_point @ self.second.bias
        per_patch = F.linear(pooled, weight_pooled, bias)
        rows = None if kept is None else (kept + G * torch.arange(B, device=kept.device).unsqueeze(1)).flatten()
        tokens = norm_linear_max(F.linear(points, folded), per_patch, self.norm2, self.fourth.weight, kept=rows)
        return (tokens + self.fourth.bias).view(B, -1, tokens.shape[-1])
