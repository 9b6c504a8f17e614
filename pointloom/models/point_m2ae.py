"""The hierarchical point transformer of Point-M2AE (Zhang et al., 2022, section 3.2): tokens of three scales."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.blocks import PositionEmbed, Transformer, init_truncated_normal, init_xavier
from pointloom.models.patch_embed import PatchEmbed
from pointloom.models.visible import Slots, put_back, visible_slots
from pointloom.ops import gather_points, group_points, knn, max_over_points
from pointloom.ops.gather import max_over_processes
from pointloom.structures import Groups, Tokens

RADII = (0.16, 0.32, 0.64, 1.28)
"""Reach of local attention per scale, finest of four first, in radii of the bounding sphere; the last three are the
official fine-tuning settings."""

Value = TypeVar("Value", int, float)

POOLINGS = ("sum", "apart", "max", "mean", "class_token")


class PointM2AEEncoder(nn.Module):
    """Encode a cloud as sets of tokens, from many small patches to few large ones.

    Args:
        num_groups: Patches per scale, finest first.
        group_sizes: What a patch consists of: points at the first scale, patches of the finer scale after it.
        dims: Token width per scale.
        depth: Blocks per scale.
        num_heads: Attention heads, the same at all scales.
        embed_hidden: Widths of the first two layers of the point embedder.
        drop_path: Largest drop-path rate, reached in the last block of the last scale.
        radii: Reach of local attention per scale: a token sees those nearer than this. It acts where nothing is
            masked, so in downstream tasks (section 3.2); None is global attention.
        pooling: What the global feature is: the ``sum`` of ``mean`` and ``max`` of the coarsest tokens (section 4.2),
            one of them (ablation, table 10), both side by side (``apart``, see ``pool``), or a ``class_token``. It is
            added, freshly drawn, for fine-tuning.
        init: ``official`` draws all weights from a truncated normal of 0.02 as the published code does; ``xavier`` uses
            Xavier-uniform blocks and torch's default in the embedders, which short schedules need.
        skip_near_origin: Points with a squared norm of at most this are no patch centres (0.001 in the CUDA kernel
            that the published weights were trained with, 0 = off).

    Attributes:
        embed_visible_only: Speed switch: embed and merge visible patches only. Off, batch statistics of the embedders
            see hidden patches too, as in the official code.
        leaky_padding: Repeat the official padding mask: tokens near the origin see padding (see ``_encode``).

    Raises:
        ValueError: The scales do not fit each other, or ``pooling`` is unknown.

    Note:
        The parameters of ``token_embeds`` are exempt from weight decay by their name, as in the official code.

        The paper adds its class token to the tokens of the first scale, without saying how it reaches the others
        (section 7.4). Here it is a token at the origin that all tokens see and that sees all; the next scale merges it
        as a patch that consists of nothing else.
    """

    def __init__(
        self,
        *,
        num_groups: tuple[int, ...],
        group_sizes: tuple[int, ...],
        dims: tuple[int, ...],
        depth: int,
        num_heads: int,
        embed_hidden: tuple[int, int],
        drop_path: float,
        radii: tuple[float, ...] | None,
        pooling: str,
        init: Literal["official", "xavier"],
        skip_near_origin: float,
    ) -> None:
        super().__init__()
        if not len(num_groups) == len(group_sizes) == len(dims) == len(radii or dims):
            raise ValueError(f"one value per scale, got {num_groups=}, {group_sizes=}, {dims=}, {radii=}")
        if list(num_groups) != sorted(num_groups, reverse=True):
            raise ValueError(f"a scale cannot have more patches than the finer one, got {num_groups=}")
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        self.num_groups = num_groups
        self.group_sizes = group_sizes
        self.dims: Sequence[int] = dims
        self.radii = radii
        self.pooling = pooling
        self.skip_near_origin = skip_near_origin
        self.embed_visible_only = False
        self.leaky_padding = False
        self.token_embeds = nn.ModuleList([PatchEmbed(dims[0], hidden=embed_hidden)])
        for finer, dim in pairwise(dims):
            self.token_embeds.append(PatchEmbed(dim, hidden=(finer, finer), channels=finer))
        self.position_embeds = nn.ModuleList(PositionEmbed(dim, hidden=dim) for dim in dims)
        rates = torch.linspace(0, drop_path, depth * len(dims)).view(len(dims), depth).tolist()
        self.transformers = nn.ModuleList(
            Transformer(dim, depth=depth, num_heads=num_heads, mlp_ratio=4.0, drop_path=rate)
            for dim, rate in zip(dims, rates, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in dims)
        if init == "official":
            init_truncated_normal(self)
        else:
            init_xavier(self.transformers)
            init_xavier(self.position_embeds)
        self.cls_token: nn.Parameter | None = None
        if pooling == "class_token":
            self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, 1, dims[0]), std=0.02))

    @property
    def global_dim(self) -> int:
        """Width of the coarsest tokens, or twice that where mean and maximum stand side by side."""
        return self.dims[-1] * (2 if self.pooling == "apart" else 1)

    @property
    def cut(self) -> tuple[tuple[int, ...], tuple[int, ...], float]:
        """How clouds are cut: patches and members of a patch per scale, and the near-origin rule."""
        return self.num_groups, self.group_sizes, self.skip_near_origin

    def group(self, coord: Float[Tensor, "b n 3"]) -> list[Groups]:
        """Cut every cloud into patches of points, these into patches of patches and so on."""
        return cut_scales(coord, self.num_groups, self.group_sizes, skip_near_origin=self.skip_near_origin)

    def forward(
        self,
        groups: list[Groups],
        masks: list[Bool[Tensor, "b _"]] | None = None,
        bounds: list[tuple[int, int]] | None = None,
    ) -> list[Tokens]:
        """Encode the visible patches of all scales, finest first; clouds may show different numbers of them.

        Every scale's tokens are normalised for those who read them; the next scale merges the tokens as they were.

        Args:
            groups: The patches.
            masks: Which of them are hidden; None for none.
            bounds: See ``visible_slots``, for every scale.
        """
        found: list[Tokens] = []
        finer: Tensor | None = None
        summary = None if self.cls_token is None else self.cls_token.expand(len(groups[0].centers), -1, -1)
        for scale, level in enumerate(groups):
            hidden = None if masks is None else masks[scale]
            raw, summary = self._embed(scale, level, finer, summary, hidden)
            norm = self.norms[scale]
            if hidden is None:
                finer, summary = self._encode(scale, raw, level.centers, summary, None)
                tokens = Tokens(tokens=norm(finer), centers=level.centers)
            else:
                slots = visible_slots(hidden, None if bounds is None else bounds[scale])
                centers = gather_points(level.centers, slots.index)
                encoded, summary = self._encode(scale, gather_points(raw, slots.index), centers, summary, slots)
                finer = put_back(raw, encoded, slots)
                tokens = Tokens(tokens=norm(encoded), centers=centers, valid=slots.valid)
            found.append(tokens if summary is None else replace(tokens, summary=norm(summary).squeeze(1)))
        return found

    def _embed(
        self, scale: int, level: Groups, finer: Tensor | None, summary: Tensor | None, hidden: Tensor | None
    ) -> tuple[Float[Tensor, "b g c"], Float[Tensor, "b 1 c"] | None]:
        """Embed the points of every patch, or merge the tokens of the finer scale that it consists of."""
        if finer is None:
            return self._embed_patches(scale, level.neighborhood, hidden), summary
        members = gather_points(finer, level.index)
        if summary is None:
            return self._embed_patches(scale, members, hidden), None
        alone = summary.to(members.dtype).unsqueeze(2).expand(-1, -1, members.shape[2], -1)
        patches = torch.cat([members, alone], dim=1)
        embedded = self._embed_patches(scale, patches, None if hidden is None else F.pad(hidden, (0, 1)))
        return embedded[:, :-1], embedded[:, -1:]

    def _embed_patches(
        self, scale: int, members: Float[Tensor, "b g k d"], hidden: Bool[Tensor, "b g"] | None
    ) -> Float[Tensor, "b g c"]:
        embed = self.token_embeds[scale]
        if hidden is None or not self.embed_visible_only:
            embedded: Tensor = embed(members)
            return embedded
        tokens = embed(members[~hidden].unsqueeze(0)).squeeze(0)
        everywhere = tokens.new_zeros(*hidden.shape, tokens.shape[-1])
        everywhere[~hidden] = tokens
        return everywhere

    def _encode(
        self, scale: int, tokens: Tensor, centers: Tensor, summary: Tensor | None, slots: Slots | None
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b 1 c"] | None]:
        """Run the blocks of a scale: global attention among visible tokens, or local attention where all are.

        Note:
            The official code blocks a pair if one of them is padding *and* they are farther apart than the radius of
            local attention. Padding is a zero token at the origin, so tokens near the origin see it.
            ``leaky_padding`` repeats this; otherwise nobody sees padding, as the paper says.
        """
        blocked = None
        if slots is None and self.radii is not None:
            blocked = torch.cdist(centers, centers) >= self.radii[scale]
        elif slots is not None and slots.valid is not None and self.leaky_padding:
            tokens, centers = tokens * slots.valid.unsqueeze(-1), centers * slots.valid.unsqueeze(-1)
            is_pair = slots.valid.unsqueeze(1) & slots.valid.unsqueeze(2)
            radii = self.radii or RADII[-len(self.dims) :]
            blocked = ~is_pair & (torch.cdist(centers, centers) >= radii[scale])
            needed = max_over_processes(slots.valid.sum(1).max())
            spare = torch.arange(tokens.shape[1], device=tokens.device) >= needed  # no padding officially
            blocked = blocked | (spare & ~spare.unsqueeze(1))
        elif slots is not None and slots.valid is not None:
            blocked = ~slots.valid.unsqueeze(1)
        if summary is None:
            return self.transformers[scale](tokens, self.position_embeds[scale](centers), blocked), None
        if blocked is not None:
            per_token = blocked.shape[1] > 1
            blocked = F.pad(blocked, (0, 1, 0, int(per_token)))
        tokens, centers = torch.cat([tokens, summary.to(tokens.dtype)], dim=1), F.pad(centers, (0, 0, 0, 1))
        encoded: Tensor = self.transformers[scale](tokens, self.position_embeds[scale](centers), blocked)
        return encoded[:, :-1], encoded[:, -1:]

    def pool(self, tokens: list[Tokens]) -> Float[Tensor, "b d"]:
        """Reduce the coarsest tokens as ``pooling`` says.

        Note:
            The official classifier for ScanObjectNN puts the mean beside the maximum over all tokens but the first, a
            left-over of a class token; ``apart`` repeats that.
        """
        top = tokens[-1].tokens
        if tokens[-1].summary is not None:
            return tokens[-1].summary
        if self.pooling == "apart":
            return torch.cat([top.mean(1), max_over_points(top[:, 1:])], dim=-1)
        if self.pooling == "max":
            return max_over_points(top)
        return top.mean(1) if self.pooling == "mean" else top.mean(1) + max_over_points(top)


def cut_scales(
    coord: Float[Tensor, "b n 3"],
    num_groups: tuple[int, ...],
    group_sizes: tuple[int, ...],
    *,
    skip_near_origin: float,
) -> list[Groups]:
    """Cut every cloud into patches of points, these into patches of patches and so on (section 3.1).

    The first centres of a farthest point order are the farthest point sample of its centres, so the coarser scales
    need no sampling of their own.

    Args:
        coord: Clouds.
        num_groups: Patches per scale, finest first.
        group_sizes: Members of a patch per scale.
        skip_near_origin: Squared norm up to which points are no patch centres.
    """
    levels = [group_points(coord, num_groups[0], group_sizes[0], skip_near_origin=skip_near_origin)]
    for number, size in zip(num_groups[1:], group_sizes[1:], strict=True):
        finer = levels[-1].centers
        centers = finer[:, :number]
        index = knn(centers, finer, size)
        neighborhood = gather_points(finer, index) - centers.unsqueeze(2)
        levels.append(Groups(centers=centers, neighborhood=neighborhood, index=index))
    return levels


def point_m2ae_base(
    *,
    scales: int = 3,
    depth: int = 5,
    point_group_size: int = 16,
    patch_group_size: int = 8,
    drop_path: float = 0.1,
    local_attention: bool = False,
    pooling: str = "sum",
    skip_near_origin: float = 0.0,
) -> PointM2AEEncoder:
    """Build the encoder of the Point-M2AE paper: 512, 256 and 64 patches of 96, 192 and 384 channels, 5 blocks each.

    Args:
        scales: 3 in the paper; fewer leave out the finest ones, a fourth has 1024 patches of 48 channels (ablation,
            table 11).
        depth: Blocks per scale.
        point_group_size: Points of a patch at the finest scale.
        patch_group_size: Finer patches of a patch at the other scales.
        drop_path: See ``PointM2AEEncoder``, as for the rest.
        local_attention: Whether attention reaches as far as ``RADII`` only, where nothing is masked.
        pooling: Global feature.
        skip_near_origin: Squared norm up to which points are no patch centres.
    """
    return PointM2AEEncoder(
        num_groups=_coarsest(scales, (1024, 512, 256, 64)),
        group_sizes=(point_group_size, *[patch_group_size] * (scales - 1)),
        dims=_coarsest(scales, (48, 96, 192, 384)),
        depth=depth,
        num_heads=6,
        embed_hidden=(128, 256),
        drop_path=drop_path,
        radii=_coarsest(scales, RADII) if local_attention else None,
        pooling=pooling,
        init="official",
        skip_near_origin=skip_near_origin,
    )


def point_m2ae_tiny(
    *,
    scales: int = 3,
    depth: int = 2,
    point_group_size: int = 16,
    patch_group_size: int = 8,
    drop_path: float = 0.1,
    local_attention: bool = False,
    pooling: str = "sum",
    skip_near_origin: float = 0.0,
) -> PointM2AEEncoder:
    """Build the encoder for two CPU cores: 128, 64 and 32 patches of 48, 96 and 192 channels, 2 blocks each.

    A fourth scale has 256 patches of 24 channels; see ``point_m2ae_base`` for the arguments.
    """
    return PointM2AEEncoder(
        num_groups=_coarsest(scales, (256, 128, 64, 32)),
        group_sizes=(point_group_size, *[patch_group_size] * (scales - 1)),
        dims=_coarsest(scales, (24, 48, 96, 192)),
        depth=depth,
        num_heads=6,
        embed_hidden=(32, 64),
        drop_path=drop_path,
        radii=_coarsest(scales, RADII) if local_attention else None,
        pooling=pooling,
        init="xavier",
        skip_near_origin=skip_near_origin,
    )


def _coarsest(scales: int, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values of the coarsest scales.

    Raises:
        ValueError: There are not so many scales.
    """
    if not 1 <= scales <= len(values):
        raise ValueError(f"scales must be 1 to {len(values)}, got {scales}")
    return values[-scales:]
