"""Transformer layers of 3DETR (Misra et al., 2021): pre-norm, positions added to queries and keys."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention with dropout of its weights; one matrix holds the projections of query, key and value."""

    def __init__(self, dim: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.project = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        for layer in (self.project, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Float[Tensor, "b q c"],
        key: Float[Tensor, "b t c"],
        value: Float[Tensor, "b t c"],
        blocked: Bool[Tensor, "b q t"] | None = None,
    ) -> Float[Tensor, "b q c"]:
        """Mix values; a query does not see ``blocked`` keys."""
        projections = zip((query, key, value), self.project.weight.chunk(3), self.project.bias.chunk(3), strict=True)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x, w, b in projections)
        mixed = F.scaled_dot_product_attention(
            q, k, v,
            attn_mask=None if blocked is None else ~blocked.unsqueeze(1),
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        first, second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight)
        super().__init__(first, nn.ReLU(), nn.Dropout(dropout), second)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each behind a LayerNorm and with a residual path."""

    def __init__(self, dim: int, *, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, num_heads=num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t c"], blocked: Bool[Tensor, "b t t"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """Transform tokens; no position is added, the tokens know theirs from set abstraction."""
        normed = self.norm1(x)
        x = x + self.dropout(self.attention(normed, normed, normed, blocked))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class DecoderLayer(nn.Module):
    """Self-attention of the queries, their attention to the scene, feed-forward network."""

    def __init__(self, dim: int, *, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attention = Attention(dim, num_heads=num_heads, dropout=dropout)
        self.cross_attention = Attention(dim, num_heads=num_heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b q c"],
        position: Float[Tensor, "b q c"],
        scene: Float[Tensor, "b t c"],
        scene_position: Float[Tensor, "b t c"],
    ) -> Float[Tensor, "b q c"]:
        """Transform queries."""
        normed = self.norm1(x)
        x = x + self.dropout(self.self_attention(normed + position, normed + position, normed))
        looking = self.norm2(x) + position
        x = x + self.dropout(self.cross_attention(looking, scene + scene_position, scene))
        return x + self.dropout(self.feed_forward(self.norm3(x)))


class FourierEmbedding(nn.Module):
    """Sines and cosines of random directions; the directions are saved with the weights."""

    directions: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.register_buffer("directions", torch.randn(3, dim // 2))

    def forward(self, place: Float[Tensor, "b t 3"]) -> Float[Tensor, "b t c"]:
        """Embed places in [0, 1], relative to the scene's bounds; in single precision."""
        with torch.autocast(place.device.type, enabled=False):
            angle = (2 * math.pi * place.float()) @ self.directions
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
