"""Heads that label every point of a cloud: those of Point-MAE and Point-M2AE, on tokens of several depths or scales."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.point_mae import PointMAEEncoder
from pointloom.ops import interpolate_features, max_over_points
from pointloom.structures import Encoder, Groups, Tokens

CATEGORY_DIM = 64
NUM_TAPS = 3


class SharedLayer(nn.Module):
    """Linear, batch norm over all points of all clouds, ReLU: one layer that every point shares.

    Args:
        c_in: Channels of all inputs together.
        c_out: Channels of the output.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, c_out)
        self.norm = nn.BatchNorm1d(c_out)

    def forward(
        self, first: Float[Tensor, "b n_or_1 c"], second: Float[Tensor, "b m_or_1 d"] | None = None
    ) -> Float[Tensor, "b n e"]:
        """Apply the layer to [first, second] of every point; an input with one row per cloud belongs to all its points.

        Note:
            The two halves of the weight act apart, so that what all points share is multiplied once and never copied.
        """
        width = first.shape[-1]
        joined = F.linear(first, self.linear.weight[:, :width], self.linear.bias)
        if second is not None:
            joined = joined + F.linear(second, self.linear.weight[:, width:])
        return F.relu(self.norm(joined.flatten(0, 1))).view(joined.shape)


class Propagation(nn.Module):
    """Spread tokens to points by their three nearest centres, join the coordinates, apply two shared layers.

    PointNet++, section 3.4; 1,536 and 1,024 channels in the official code of both papers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([SharedLayer(3 + dim, 1536), SharedLayer(1536, 1024)])

    def forward(
        self, coord: Float[Tensor, "b n 3"], centers: Float[Tensor, "b t 3"], feature: Float[Tensor, "b t c"]
    ) -> Float[Tensor, "b n d"]:
        """Return features of all points."""
        first, second = self.layers
        return second(first(coord, interpolate_features(coord, centers, feature)))


class CategoryEmbed(nn.Module):
    """Embed the category of a cloud: linear without bias, batch norm, leaky ReLU 0.2."""

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_categories, CATEGORY_DIM, bias=False)
        self.norm = nn.BatchNorm1d(CATEGORY_DIM)

    def forward(self, category: Float[Tensor, "b c"]) -> Float[Tensor, "b d"]:
        """Return (b, 64) for one-hot categories."""
        return F.leaky_relu(self.norm(self.linear(category)), 0.2)


class PointMAESegmentationHead(nn.Module):
    """Label points from tokens of three depths of a plain encoder (Point-MAE, section 4.2; official code).

    Args:
        dims: Token width per depth.
        num_parts: Labels.
        num_categories: Categories of clouds that the head is told; 0 where it is told none (S3DIS).
    """

    def __init__(self, dims: tuple[int, ...], *, num_parts: int, num_categories: int) -> None:
        super().__init__()
        width = sum(dims)
        self.category_embed = CategoryEmbed(num_categories) if num_categories else None
        self.propagation = Propagation(width)
        self.first = SharedLayer(1024 + 2 * width + (CATEGORY_DIM if num_categories else 0), 512)
        self.dropout = nn.Dropout(0.5)
        self.second = SharedLayer(512, 256)
        self.last = nn.Linear(256, num_parts)

    def forward(
        self, coord: Float[Tensor, "b n 3"], levels: list[Tokens], category: Float[Tensor, "b c"] | None
    ) -> Float[Tensor, "b n p"]:
        """Return logits per point.

        Args:
            coord: The cloud.
            levels: Tokens of the same patches at several depths.
            category: One-hot category per cloud.
        """
        tokens = torch.cat([level.tokens for level in levels], dim=-1)
        cloud = [max_over_points(tokens), tokens.mean(1)]
        if self.category_embed is not None and category is not None:
            cloud.append(self.category_embed(category))
        point = self.propagation(coord, levels[-1].centers, tokens)
        hidden = self.dropout(self.first(point, torch.cat(cloud, dim=-1).unsqueeze(1)))
        return self.last(self.second(hidden))


class PointM2AESegmentationHead(nn.Module):
    """Label points from tokens of all scales of a hierarchical encoder (Point-M2AE, section 4.2; official code).

    Every scale is spread to the points on its own.

    Args:
        dims: Token width per scale.
        num_parts: Labels.
        num_categories: Categories of clouds that the head is told; 0 where it is told none.
    """

    def __init__(self, dims: tuple[int, ...], *, num_parts: int, num_categories: int) -> None:
        super().__init__()
        width = 1024 * len(dims)
        self.category_embed = CategoryEmbed(num_categories) if num_categories else None
        self.propagations = nn.ModuleList(Propagation(dim) for dim in dims)
        self.first = SharedLayer(2 * width + (CATEGORY_DIM if num_categories else 0), 1024)
        self.dropout = nn.Dropout(0.5)
        self.second = SharedLayer(1024, 512)
        self.third = SharedLayer(512, 256)
        self.last = nn.Linear(256, num_parts)

    def forward(
        self, coord: Float[Tensor, "b n 3"], levels: list[Tokens], category: Float[Tensor, "b c"] | None
    ) -> Float[Tensor, "b n p"]:
        """Return logits per point.

        Args:
            coord: The cloud.
            levels: Tokens per scale, finest first.
            category: One-hot category per cloud.
        """
        spread = [
            propagation(coord, level.centers, level.tokens)
            for propagation, level in zip(self.propagations, levels, strict=True)
        ]
        point = torch.cat(spread, dim=-1)
        cloud = [max_over_points(point) + point.mean(1)]
        if self.category_embed is not None and category is not None:
            cloud.append(self.category_embed(category))
        hidden = self.dropout(self.first(torch.cat(cloud, dim=-1).unsqueeze(1), point))
        return self.last(self.third(self.second(hidden)))


class PointSegmenter(nn.Module):
    """An encoder with the head of its paper: a logit per point and label.

    Args:
        encoder: A plain encoder, or a hierarchical one with a level per scale.
        num_parts: Labels.
        num_categories: Categories of clouds that the head is told; 0 where it is told none.

    Raises:
        ValueError: There is no segmentation head for this encoder.
    """

    def __init__(self, encoder: Encoder, *, num_parts: int, num_categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.taps: tuple[int, ...] = ()
        if isinstance(encoder, PointMAEEncoder):
            self.taps = evenly_spaced_taps(len(encoder.transformer.blocks))
            dims = (encoder.dim,) * NUM_TAPS
            self.head: nn.Module = PointMAESegmentationHead(dims, num_parts=num_parts, num_categories=num_categories)
        elif len(encoder.dims) > 1:
            dims = tuple(encoder.dims)
            self.head = PointM2AESegmentationHead(dims, num_parts=num_parts, num_categories=num_categories)
        else:
            raise ValueError(
                f"there is no segmentation head for {type(encoder).__name__}; use a point_mae or point_m2ae encoder"
            )

    def forward(self, coord: Float[Tensor, "b n 3"], category: Float[Tensor, "b c"] | None) -> Float[Tensor, "b n p"]:
        """Return logits per point.

        Args:
            coord: Clouds.
            category: One-hot category per cloud, None where the head is told none.
        """
        groups = self.encoder.group(coord)
        if isinstance(self.encoder, PointMAEEncoder):
            levels = tapped_tokens(self.encoder, groups, taps=self.taps)
        else:
            levels = self.encoder(groups)
        logits: Tensor = self.head(coord, levels, category)
        return logits


def tapped_tokens(encoder: PointMAEEncoder, groups: list[Groups], *, taps: tuple[int, ...]) -> list[Tokens]:
    """Return the patch tokens after some blocks, each through the encoder's final LayerNorm.

    Args:
        encoder: A plain encoder; a class token takes part in attention and is left out of the result.
        groups: Patches.
        taps: Blocks, counted from 0.
    """
    (level,) = groups
    tokens, position = encoder.patch_embed(level.neighborhood), encoder.position_embed(level.centers)
    extra = 0
    if encoder.cls_token is not None and encoder.cls_position is not None:
        extra = 1
        tokens = torch.cat([encoder.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        position = torch.cat([encoder.cls_position.expand(len(tokens), -1, -1).to(position.dtype), position], dim=1)
    found = []
    for number, block in enumerate(encoder.transformer.blocks):
        tokens = block(tokens + position)
        if number in taps:
            found.append(Tokens(tokens=encoder.norm(tokens)[:, extra:], centers=level.centers))
    return found


def evenly_spaced_taps(depth: int) -> tuple[int, ...]:
    """Return the blocks that end the thirds of an encoder, counted from 0: 3, 7 and 11 of 12 as in Point-MAE.

    Raises:
        ValueError: There are fewer than three blocks.
    """
    if depth < NUM_TAPS:
        raise ValueError(f"segmentation reads three blocks of the encoder, this one has {depth}")
    return tuple(round(depth * (third + 1) / NUM_TAPS) - 1 for third in range(NUM_TAPS))
