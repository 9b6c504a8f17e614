"""Decoders that fill in hidden tokens."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.blocks import PositionEmbed, Transformer, init_xavier


class MaskedDecoder(nn.Module):
    """Point-MAE's decoder (section 3.2): learned mask tokens join the visible ones; only their outputs are returned.

    Args:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads.
        drop_path: Largest drop-path rate.
    """

    def __init__(self, dim: int, *, depth: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, dim), std=0.02))
        self.position_embed = PositionEmbed(dim, hidden=128)
        self.transformer = Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=4.0, drop_path=drop_path)
        self.norm = nn.LayerNorm(dim)
        init_xavier(self.transformer)

    def forward(
        self,
        visible: Float[Tensor, "b v c"],
        visible_centers: Float[Tensor, "b v 3"],
        hidden_centers: Float[Tensor, "b h 3"],
    ) -> Float[Tensor, "b h c"]:
        """Return a token for every hidden centre."""
        B, H, _ = hidden_centers.shape
        position = self.position_embed(torch.cat([visible_centers, hidden_centers], dim=1))
        tokens = torch.cat([visible, self.mask_token.expand(B, H, -1).to(visible.dtype)], dim=1)
        return self.norm(self.transformer(tokens, position)[:, -H:])
