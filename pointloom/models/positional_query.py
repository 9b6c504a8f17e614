"""Where a patch lies relative to another view, and the attention that asks that view about it (Point-PQAE)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

BASE = 10000.0


def embed_numbers(numbers: Float[Tensor, "b g s"], dim: int) -> Float[Tensor, "b g c"]:
    """Return ``dim`` fixed sines and cosines: for every number in turn, sin(v w_j) for all j, then cos(v w_j).

    The frequencies are w_j = 10000^(-j / J), j = 0..J-1, with J = dim / (2 s); nothing is learned or rescaled. For the
    six numbers of a relative position this is Point-PQAE's view-relative position embedding (VRPE).

    Raises:
        ValueError: ``dim`` is not a multiple of twice the count of numbers.
    """
    width, rest = divmod(dim, 2 * numbers.shape[-1])
    if rest:
        raise ValueError(f"{numbers.shape[-1]} numbers need a multiple of {2 * numbers.shape[-1]} channels, got {dim}")
    exponent = torch.arange(width, device=numbers.device, dtype=torch.float64) / width
    phase = numbers.unsqueeze(-1) * (BASE**-exponent).to(numbers.dtype)
    return torch.cat([phase.sin(), phase.cos()], dim=-1).flatten(2)


class PositionalQuery(nn.Module):
    """Cross-attention from positions to the tokens of the other view; no residual path, norm or MLP.

    Args:
        dim: Width of positions and tokens.
        num_heads: Attention heads.

    Raises:
        ValueError: ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(self, dim: int, *, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, position: Float[Tensor, "b g c"], tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b g c"]:
        """Return one vector per position, mixed from ``tokens``."""
        B, G, C = position.shape
        q = self.q(position).view(B, G, self.num_heads, -1).transpose(1, 2)
        k, v = self.kv(tokens).view(B, tokens.shape[1], 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, G, C))
