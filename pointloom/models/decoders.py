"""Decoders that fill in hidden tokens or sum up visible ones."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.models.blocks import PositionEmbed, Transformer, init_xavier
from pointloom.ops import gather_points, max_over_points, own_rows


class MaskedDecoder(nn.Module):
    """Point-MAE's decoder (section 3.2): learned mask tokens join the visible ones.

    Args:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads.
        drop_path: Largest drop-path rate.
        shuffle: While training, deal the contents of all tokens of a cloud out anew; the positions stay where they
            are (two-stage paper, section 3.2: positions are added after the shuffling).
    """

    def __init__(self, dim: int, *, depth: int, num_heads: int, drop_path: float, shuffle: bool = False) -> None:
        super().__init__()
        self.shuffle = shuffle
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
        return self.norm(self._mix(visible, visible_centers, hidden_centers)[:, visible.shape[1] :])

    def everywhere(
        self,
        visible: Float[Tensor, "b v c"],
        visible_centers: Float[Tensor, "b v 3"],
        hidden_centers: Float[Tensor, "b h 3"],
    ) -> Float[Tensor, "b t c"]:
        """Return a token for every visible centre, then for every hidden one."""
        return self.norm(self._mix(visible, visible_centers, hidden_centers))

    def _mix(self, visible: Tensor, visible_centers: Tensor, hidden_centers: Tensor) -> Tensor:
        B, H, _ = hidden_centers.shape
        position = self.position_embed(torch.cat([visible_centers, hidden_centers], dim=1))
        tokens = torch.cat([visible, self.mask_token.expand(B, H, -1).to(visible.dtype)], dim=1)
        if self.shuffle and self.training:
            tokens = shuffle_tokens(tokens)
        return self.transformer(tokens, position)


def shuffle_tokens(tokens: Float[Tensor, "b t c"]) -> Float[Tensor, "b t c"]:
    """Deal the tokens of every cloud out anew."""
    B, T, _ = tokens.shape
    order = own_rows(lambda rows: torch.rand(rows, T, device=tokens.device), B).argsort(1)
    return gather_points(tokens, order)


class PooledHead(nn.Module):
    """Predict a vector from an encoder's own pooled feature with two linear layers.

    Args:
        dim: Width of the pooled feature, and of the layer between.
        out_dim: Width of the vector.
    """

    def __init__(self, dim: int, *, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, out_dim))

    def forward(self, pooled: Float[Tensor, "b c"]) -> Float[Tensor, "b d"]:
        """Return the predicted vector."""
        return self.layers(pooled)


class GlobalDecoder(nn.Module):
    """Sum up visible tokens in one vector (two-stage paper, section 3.2): blocks without positions, then pooling.

    Args:
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads.
        drop_path: Largest drop-path rate.
        out_dim: Width of the vector.
    """

    def __init__(self, dim: int, *, depth: int, num_heads: int, drop_path: float, out_dim: int) -> None:
        super().__init__()
        self.transformer = Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=4.0, drop_path=drop_path)
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, out_dim)
        init_xavier(self.transformer)

    def forward(self, visible: Float[Tensor, "b v c"]) -> Float[Tensor, "b d"]:
        """Return mean plus maximum of the tokens, projected."""
        tokens = self.norm(self.transformer(visible, torch.zeros_like(visible)))
        return self.predict(tokens.mean(1) + max_over_points(tokens))
