"""Pre-norm transformer blocks as in ViT, with the positional embedding added before every block (Point-MAE)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops import own_rows

BLOCKED = -1e5  # added to blocked scores: exp() of it is 0 even in bfloat16


class DropPath(nn.Module):
    """Drop the whole residual branch of random samples while training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        """Zero the branch of a sample with probability ``rate`` and rescale the others."""
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        kept = own_rows(lambda rows: torch.rand(rows, 1, 1, device=x.device, dtype=x.dtype), len(x)) < keep
        return x * kept / keep


class Attention(nn.Module):
    """Multi-head self-attention; the joint query-key-value projection has no bias, the output projection has one."""

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "b t c"], blocked: Bool[Tensor, "b _ t"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """Mix the tokens of every sample; queries do not see ``blocked`` keys, one row per query or one for all."""
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, T, C / heads)
        if x.is_cuda or q.dtype != torch.bfloat16:
            seen = None if blocked is None else ~blocked.unsqueeze(1)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        else:  # the gradient of the fused form takes three times as long on a CPU in bfloat16
            scores = (q * self.scale) @ k.transpose(-2, -1)
            if blocked is not None:
                scores = scores + (blocked.unsqueeze(1) * BLOCKED).to(scores.dtype)
            mixed = scores.softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(B, T, C))


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
        """Transform every token on its own."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and with a residual path."""

    def __init__(self, dim: int, *, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden=int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b t c"], blocked: Bool[Tensor, "b _ t"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """Apply both residual branches."""
        x = x + self.drop_path(self.attn(self.norm1(x), blocked))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """A stack of blocks that sees the positions anew before every block.

    Args:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the MLPs' hidden layer, in token widths.
        drop_path: Largest drop-path rate, which grows linearly with depth; or ``depth`` rates, one per block.
    """

    def __init__(
        self, dim: int, *, depth: int, num_heads: int, mlp_ratio: float, drop_path: float | Sequence[float]
    ) -> None:
        super().__init__()
        rates = drop_path if isinstance(drop_path, Sequence) else torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.ModuleList(
            Block(dim, num_heads=num_heads, mlp_ratio=mlp_ratio, drop_path=rate) for rate in rates
        )

    def forward(
        self,
        x: Float[Tensor, "b t c"],
        position: Float[Tensor, "b t c"],
        blocked: Bool[Tensor, "b _ t"] | None = None,
    ) -> Float[Tensor, "b t c"]:
        """Run all blocks; ``blocked`` says which keys the queries do not see."""
        for block in self.blocks:
            x = block(x + position, blocked)
        return x


class PositionEmbed(nn.Sequential):
    """Embed centre coordinates with a two-layer MLP."""

    def __init__(self, dim: int, *, hidden: int) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))


def init_truncated_normal(module: nn.Module) -> None:
    """Draw Linear weights from N(0, 0.02) cut at two absolute units, zero biases; LayerNorm starts as the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_xavier(module: nn.Module) -> None:
    """Draw Linear weights from the Xavier-uniform distribution, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_small_points(layer: nn.Linear) -> None:
    """Make the points that a layer predicts about as large as a patch, instead of about five times that."""
    with torch.no_grad():
        layer.weight.mul_(0.1)
        nn.init.normal_(layer.bias, std=0.08)
