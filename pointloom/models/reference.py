"""The reference path: the models computed as the papers' code writes them down, to compare speed and results with."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.blocks import BLOCKED, Attention
from pointloom.models.hierarchical_decoder import TokenPropagation
from pointloom.models.patch_embed import PatchEmbed
from pointloom.ops import gather_points


def use_reference_path(model: nn.Module) -> None:
    """Replace every part that has a fast form by its plain form; weights and their names stay.

    The plain forms are 1x1 convolutions over all points of a patch, the pooled vector copied to every point, and
    attention with all its scores in memory. The point operations follow with ``POINTLOOM_OPS_BACKEND=torch``.

    Note:
        ``benchmarks/step.py`` measures the fast path against this one; nothing else needs it.
    """
    for module in list(model.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, PatchEmbed):
                setattr(module, name, PlainPatchEmbed(part))
            elif isinstance(part, Attention):
                setattr(module, name, PlainAttention(part))
            elif isinstance(part, TokenPropagation):
                setattr(module, name, PlainTokenPropagation(part))


class PlainPatchEmbed(nn.Module):
    """The mini-PointNet of Point-MAE (section 3.1), layer by layer; shares the layers of ``fast``."""

    def __init__(self, fast: PatchEmbed) -> None:
        super().__init__()
        self.first, self.norm1, self.second = fast.first, fast.norm1, fast.second
        self.third, self.norm2, self.fourth = fast.third, fast.norm2, fast.fourth

    def forward(
        self, neighborhood: Float[Tensor, "b g k d"], kept: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b _ c"]:
        """Return one token per patch, or those of the kept patches."""
        B, G, K, _ = neighborhood.shape
        points = neighborhood.flatten(0, 1).transpose(1, 2)  # (B G, D, K)
        points = _convolve(self.second, F.relu(self.norm1(_convolve(self.first, points))))
        pooled = points.max(-1, keepdim=True).values
        joined = torch.cat([pooled.expand(-1, -1, K), points], dim=1)
        points = _convolve(self.fourth, F.relu(self.norm2(_convolve(self.third, joined))))
        tokens = points.max(-1).values.view(B, G, -1)
        return tokens if kept is None else gather_points(tokens, kept)


class PlainAttention(nn.Module):
    """Self-attention that writes its scores down; shares the layers of ``fast``."""

    def __init__(self, fast: Attention) -> None:
        super().__init__()
        self.num_heads, self.scale = fast.num_heads, fast.scale
        self.qkv, self.proj = fast.qkv, fast.proj

    def forward(
        self, x: Float[Tensor, "b t c"], blocked: Bool[Tensor, "b _ t"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """Mix the tokens of every sample; queries do not see ``blocked`` keys."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * self.scale
        if blocked is not None:
            scores = scores + blocked.unsqueeze(1) * BLOCKED
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


class PlainTokenPropagation(nn.Module):
    """The step to a finer scale of Point-M2AE's decoder with convolutions; shares the layers of ``fast``."""

    def __init__(self, fast: TokenPropagation) -> None:
        super().__init__()
        self.fuse, self.norm, self.first, self.norm1 = fast.fuse, fast.norm, fast.first, fast.norm1
        self.second, self.norm2 = fast.second, fast.norm2

    def forward(self, joined: Float[Tensor, "b g d"]) -> Float[Tensor, "b g c"]:
        """Transform every token on its own."""
        x = F.gelu(self.norm(_convolve(self.fuse, joined.transpose(1, 2))))
        residual = self.norm2(_convolve(self.second, F.gelu(self.norm1(_convolve(self.first, x)))))
        return F.gelu(residual + x).transpose(1, 2)


def _convolve(layer: nn.Linear, x: Float[Tensor, "b d k"]) -> Float[Tensor, "b c k"]:
    return F.conv1d(x, layer.weight.unsqueeze(-1), layer.bias)
