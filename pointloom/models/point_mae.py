"""The plain point transformer of Point-MAE (section 3.2): patches, a mini-PointNet, a ViT."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.models.blocks import PositionEmbed, Transformer, init_truncated_normal, init_xavier
from pointloom.models.patch_embed import PatchEmbed
from pointloom.models.visible import visible_slots
from pointloom.ops import gather_points, group_points, max_over_points
from pointloom.structures import Groups, Tokens


class PointMAEEncoder(nn.Module):
    """Encode a cloud as a set of patch tokens.

    Args:
        num_groups: Patches per cloud.
        group_size: Points per patch.
        dim: Token width.
        depth: Number of blocks.
        num_heads: Attention heads.
        embed_hidden: Widths of the patch embedder's first two layers.
        drop_path: Largest drop-path rate, reached in the last block.
        class_token: Whether a class token with a position of its own is prepended. Pre-training has none; it is added,
            freshly drawn, for fine-tuning.
        init: ``official`` draws all weights from a truncated normal of 0.02 as the published code does; ``xavier`` uses
            Xavier-uniform blocks and torch's default in the patch embedder, which short schedules need.
        skip_near_origin: Points with a squared norm of at most this are no patch centres (0.001 in the CUDA kernel
            that the published weights were trained with, 0 = off).

    Attributes:
        embed_visible_only: Speed switch: embed only the visible patches. Off, batch statistics of the embedder see
            hidden patches too, as in the official code.
    """

    def __init__(
        self,
        *,
        num_groups: int,
        group_size: int,
        dim: int,
        depth: int,
        num_heads: int,
        embed_hidden: tuple[int, int],
        drop_path: float,
        class_token: bool,
        init: Literal["official", "xavier"],
        skip_near_origin: float,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.group_size = group_size
        self.dim = dim
        self.skip_near_origin = skip_near_origin
        self.embed_visible_only = False
        self.patch_embed = PatchEmbed(dim, hidden=embed_hidden)
        self.position_embed = PositionEmbed(dim, hidden=128)
        self.transformer = Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=4.0, drop_path=drop_path)
        self.norm = nn.LayerNorm(dim)
        if init == "official":
            for part in (self.transformer, self.position_embed, self.patch_embed):
                init_truncated_normal(part)
        else:
            init_xavier(self.transformer)
            init_xavier(self.position_embed)
        self.cls_token: nn.Parameter | None = None
        self.cls_position: nn.Parameter | None = None
        if class_token:
            self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, dim), std=0.02))
            self.cls_position = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, dim), std=0.02))

    @property
    def dims(self) -> Sequence[int]:
        """One level of ``dim`` channels."""
        return (self.dim,)

    @property
    def global_dim(self) -> int:
        """Two pooled vectors side by side."""
        return 2 * self.dim

    @property
    def cut(self) -> tuple[tuple[int, ...], tuple[int, ...], float]:
        """How clouds are cut: patches and members of a patch per scale, and the near-origin rule."""
        return (self.num_groups,), (self.group_size,), self.skip_near_origin

    def group(self, coord: Float[Tensor, "b n 3"]) -> list[Groups]:
        """Cut every cloud into ``num_groups`` patches."""
        return [group_points(coord, self.num_groups, self.group_size, skip_near_origin=self.skip_near_origin)]

    def forward(
        self,
        groups: list[Groups],
        masks: list[Bool[Tensor, "b g"]] | None = None,
        bounds: list[tuple[int, int]] | None = None,
    ) -> list[Tokens]:
        """Encode the visible patches.

        Args:
            groups: The patches.
            masks: Which of them are hidden; None for none.
            bounds: See ``visible_slots``.

        Raises:
            ValueError: Clouds hide different numbers of patches.
        """
        (level,) = groups
        centers = level.centers
        visible = None
        if masks is not None:
            slots = visible_slots(masks[0], None if bounds is None else bounds[0])
            if slots.valid is not None:
                raise ValueError("every cloud must hide the same number of patches")
            visible = slots.index
            centers = gather_points(centers, visible)
        if visible is not None and self.embed_visible_only:
            neighborhood = gather_points(level.neighborhood.flatten(2), visible).unflatten(2, (-1, 3))
            tokens = self.patch_embed(neighborhood)
        else:
            tokens = self.patch_embed(level.neighborhood, visible)
        position = self.position_embed(centers)
        if self.cls_token is None or self.cls_position is None:
            return [Tokens(tokens=self.norm(self.transformer(tokens, position)), centers=centers)]
        B = len(tokens)
        tokens = torch.cat([self.cls_token.expand(B, -1, -1).to(tokens.dtype), tokens], dim=1)
        position = torch.cat([self.cls_position.expand(B, -1, -1).to(position.dtype), position], dim=1)
        encoded = self.norm(self.transformer(tokens, position))
        return [Tokens(tokens=encoded[:, 1:], centers=centers, summary=encoded[:, 0])]

    def pool(self, tokens: list[Tokens]) -> Float[Tensor, "b d"]:
        """Join [class token, maximum over patches] (Point-MAE fine-tuning), or [mean, maximum] without class token."""
        (level,) = tokens
        first = level.tokens.mean(1) if level.summary is None else level.summary
        return torch.cat([first, max_over_points(level.tokens)], dim=-1)


def point_mae_small(
    *,
    num_groups: int = 64,
    group_size: int = 32,
    drop_path: float = 0.1,
    class_token: bool = False,
    skip_near_origin: float = 0.0,
) -> PointMAEEncoder:
    """Build the encoder of the Point-MAE paper: 12 blocks of 384 channels, 6 heads, 64 patches of 32 points."""
    return PointMAEEncoder(
        num_groups=num_groups,
        group_size=group_size,
        dim=384,
        depth=12,
        num_heads=6,
        embed_hidden=(128, 256),
        drop_path=drop_path,
        class_token=class_token,
        init="official",
        skip_near_origin=skip_near_origin,
    )


def point_mae_tiny(
    *,
    num_groups: int = 32,
    group_size: int = 32,
    drop_path: float = 0.1,
    class_token: bool = False,
    skip_near_origin: float = 0.0,
) -> PointMAEEncoder:
    """Build the encoder for two CPU cores: 6 blocks of 192 channels, 6 heads, 32 patches of 32 points."""
    return PointMAEEncoder(
        num_groups=num_groups,
        group_size=group_size,
        dim=192,
        depth=6,
        num_heads=6,
        embed_hidden=(64, 128),
        drop_path=drop_path,
        class_token=class_token,
        init="xavier",
        skip_near_origin=skip_near_origin,
    )
