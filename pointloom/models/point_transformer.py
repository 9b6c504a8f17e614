"""Point Transformer (Zhao et al., 2021): vector attention among neighbours, for packed scenes of different sizes.

7,766,180 parameters at the published size, without a head.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.scene_geometry import GeometryLevel, Neighbors, Transition, scene_geometry
from pointloom.ops import max_over_points, nearest_weights, neighbor_rows, neighbor_sums, norm_relu, weighted_rows
from pointloom.ops.segments import clouds_of, to_corner
from pointloom.structures import SceneBatch, SceneLevel

SHARED = 8
"""Channels that share one attention weight."""


class PointTransformer(nn.Module):
    """Encoder and decoder without a head; the finest level lies on the input points, in their order.

    Args:
        dims: Channels per level, finest first.
        depths: Attention blocks per level of the encoder; the decoder has one per level.
        strides: For every further level: of how many places of the finer one a place remains.
        num_neighbors: Neighbours per level, the point itself included.
        attention_norm: str inside the attention's small networks: ``batch`` as in the paper's code, ``layer`` as in
            Pointcept.
        voxel_size: Edge in metres of the voxels of which a batch has one point each; the network itself does not thin.

    Note:
        Input are coordinates from the lowest corner of the scene, as in the official loaders, and colours in [0, 1].
        Here the network finds that corner itself, among the points that it is given.

    Raises:
        ValueError: The lists have different lengths, or a value does not fit.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        num_neighbors: Sequence[int],
        attention_norm: str,
        voxel_size: float,
    ) -> None:
        super().__init__()
        if len({len(dims), len(depths), 1 + len(strides), len(num_neighbors)}) > 1:
            raise ValueError(
                f"dims {dims}, depths {depths} and num_neighbors {num_neighbors} need one value per level, strides "
                f"{strides} one less"
            )
        if attention_norm not in ("batch", "layer") or not voxel_size > 0:
            raise ValueError(
                f"attention_norm is batch or layer, got {attention_norm!r}; voxel_size is above 0, got {voxel_size}"
            )
        self.dims = list(dims)
        self.voxel_size = voxel_size
        self.least_points = 2 * math.prod(strides)
        """Points of a scene that is a training batch of its own: two places at the coarsest level."""
        self.strides, self.num_neighbors = list(strides), list(num_neighbors)
        self.stem, self.stem_norm = nn.Linear(6, dims[0], bias=False), nn.BatchNorm1d(dims[0])
        self.down = nn.ModuleList(_Down(dims[i], dims[i + 1]) for i in range(len(strides)))
        self.encoder = nn.ModuleList(
            nn.ModuleList(_Block(dim, norm=attention_norm) for _ in range(depth))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.summary = _Summary(dims[-1])
        self.up = nn.ModuleList(_Up(dims[i + 1], dims[i]) for i in range(len(strides)))
        self.decoder = nn.ModuleList(_Block(dim, norm=attention_norm) for dim in dims)

    def forward(self, scenes: SceneBatch) -> list[SceneLevel]:
        """Return the decoder's levels, finest first.

        Raises:
            ValueError: The scenes are too small to train on: one place at the coarsest level has no batch statistics.
        """
        levels, transitions = scene_geometry(
            scenes.coord, scenes.offset, strides=self.strides, num_neighbors=self.num_neighbors
        )
        if self.training and len(levels[-1].coord) < 2:
            raise ValueError(
                f"a batch of {len(scenes.coord)} points leaves one place at the coarsest level, training needs two; "
                "use larger scenes, smaller voxels or a larger batch"
            )
        features = self._encode(scenes, levels, transitions)
        feature = self.decoder[-1](self.summary(features[-1], levels[-1].offset), levels[-1].near)
        outputs = [feature]
        for i in reversed(range(len(transitions))):
            feature = self.decoder[i](self.up[i](feature, features[i], transitions[i]), levels[i].near)
            outputs.append(feature)
        return [
            SceneLevel(coord=level.coord, feature=out, offset=level.offset)
            for level, out in zip(levels, reversed(outputs), strict=True)
        ]

    def _encode(self, scenes: SceneBatch, levels: list[GeometryLevel], transitions: list[Transition]) -> list[Tensor]:
        """Return the encoder's features of every level, finest first."""
        features: list[Tensor] = []
        for i, level in enumerate(levels):
            if i == 0:
                given = torch.cat([to_corner(scenes.coord, scenes.offset), scenes.color], dim=1)
                feature = _relu(self.stem_norm(self.stem(given)))
            else:
                feature = self.down[i - 1](feature, transitions[i - 1].finer)
            for block in self.encoder[i]:  # type: ignore[attr-defined]
                feature = block(feature, level.near)
            features.append(feature)
        return features

    def spread(
        self, levels: list[SceneLevel], coord: Float[Tensor, "q 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, "q d"]:
        """Return the features of the given levels at any points of the same scenes, from the three nearest places."""
        parts = [
            weighted_rows(level.feature, *nearest_weights(coord, offset, level.coord, level.offset)) for level in levels
        ]
        return torch.cat(parts, dim=1)


class _VectorAttention(nn.Module):
    """Attention whose weights differ between channels (section 3.2, equation 3)."""

    def __init__(self, dim: int, *, norm: str) -> None:
        super().__init__()
        if dim % SHARED:
            raise ValueError(f"the channels of a level are a multiple of {SHARED}, got {dim}")
        normed = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
        weights = dim // SHARED
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.position_in, self.position_norm = nn.Linear(3, 3), normed(3)
        self.position_out = nn.Linear(3, dim)
        self.weight_norm1, self.weight_in = normed(dim), nn.Linear(dim, weights)
        self.weight_norm2, self.weight_out = normed(weights), nn.Linear(weights, weights)

    def forward(self, feature: Float[Tensor, "p c"], near: Neighbors) -> Float[Tensor, "p c"]:
        """Let every point look at its neighbours."""
        query, key, value = self.query(feature), self.key(feature), self.value(feature)
        # Equation 3 adds position_out(place) to keys and values; its bias is added once per point, the rest on the fly.
        place = _norm_relu(self.position_in(near.relative), None, self.position_norm)
        bias, matrix = self.position_out.bias, self.position_out.weight
        relation = neighbor_rows(key + bias, near.index, place, matrix)
        hidden = self.weight_in(_norm_relu(relation, -query, self.weight_norm1))
        share = self.weight_out(_norm_relu(hidden, None, self.weight_norm2)).softmax(dim=1)
        return neighbor_sums(value + bias, near.index, place, matrix, share)


class _Block(nn.Module):
    """Linear layer, attention, linear layer, with a residual path (figure 4a)."""

    def __init__(self, dim: int, *, norm: str) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.attention = _VectorAttention(dim, norm=norm)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm1d(dim) for _ in range(3))

    def forward(self, feature: Float[Tensor, "p c"], near: Neighbors) -> Float[Tensor, "p c"]:
        """Refine the features of one level."""
        hidden = _relu(self.norm1(self.enter(feature)))
        hidden = _relu(self.norm2(self.attention(hidden, near)))
        return _relu(self.norm3(self.leave(hidden)) + feature)


class _Down(nn.Module):
    """From the places of a level to the fewer ones of the next, by the maximum over neighbours (figure 4b)."""

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 + dim_in, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, feature: Float[Tensor, "p d"], finer: Neighbors) -> Float[Tensor, "q c"]:
        """Apply the layer to coordinates and features apart: to features once per place instead of once per pair."""
        given = F.linear(feature, self.linear.weight[:, 3:])
        members = neighbor_rows(given, finer.index, finer.relative, self.linear.weight[:, :3])
        return max_over_points(_norm_relu(members, None, self.norm))


class _Summary(nn.Module):
    """Tell every place of the coarsest level the mean of its scene."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean, self.join = nn.Linear(dim, dim), nn.Linear(2 * dim, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, feature: Float[Tensor, "p c"], offset: Int[Tensor, " s"]) -> Float[Tensor, "p c"]:
        """Join the mean to the features."""
        scene = clouds_of(offset, len(feature))
        sizes = offset.diff(prepend=offset.new_zeros(1)).unsqueeze(1)
        total = feature.new_zeros(len(offset), feature.shape[1]).index_add(0, scene, feature)
        mean = _relu(self.mean(total / sizes))
        return _relu(self.norm(self.join(torch.cat([feature, mean[scene]], dim=1))))


class _Up(nn.Module):
    """From a coarser level back to a finer one, joined with the encoder's features there (figure 4c)."""

    def __init__(self, dim_coarse: int, dim: int) -> None:
        super().__init__()
        self.skip, self.skip_norm = nn.Linear(dim, dim), nn.BatchNorm1d(dim)
        self.coarse, self.coarse_norm = nn.Linear(dim_coarse, dim), nn.BatchNorm1d(dim)

    def forward(
        self, coarse: Float[Tensor, "p d"], skip: Float[Tensor, "q c"], transition: Transition
    ) -> Float[Tensor, "q c"]:
        """Interpolate from the three nearest places of the coarser level and add."""
        hidden = _relu(self.coarse_norm(self.coarse(coarse)))
        own = _relu(self.skip_norm(self.skip(skip)))
        return own + weighted_rows(hidden, transition.coarser, transition.weight)


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True)  # what comes in is the output of a norm or a sum, which nothing else reads


def _norm_relu(
    x: Float[Tensor, "p k c"], added: Float[Tensor, "p c"] | None, norm: nn.BatchNorm1d | nn.LayerNorm
) -> Float[Tensor, "p k c"]:
    """Return ``relu(norm(x + added))``; what is added is the same for all neighbours of a point."""
    if isinstance(norm, nn.BatchNorm1d):
        return norm_relu(x, x.new_zeros(x.shape[0], x.shape[2]) if added is None else added, norm)
    return F.relu(norm(x if added is None else x + added.unsqueeze(1)))


def point_transformer(*, voxel_size: float = 0.04, attention_norm: str = "batch") -> PointTransformer:
    """Build the published network; voxels of 4 cm for S3DIS, 2 cm for ScanNet."""
    return PointTransformer(
        dims=(32, 64, 128, 256, 512),
        depths=(1, 2, 3, 5, 2),
        strides=(4, 4, 4, 4),
        num_neighbors=(8, 16, 16, 16, 16),
        attention_norm=attention_norm,
        voxel_size=voxel_size,
    )


def point_transformer_tiny(*, voxel_size: float = 0.08, attention_norm: str = "batch") -> PointTransformer:
    """Build a small network for two CPU cores."""
    return PointTransformer(
        dims=(32, 64, 128, 256),
        depths=(1, 1, 1, 1),
        strides=(4, 4, 4),
        num_neighbors=(8, 8, 8, 8),
        attention_norm=attention_norm,
        voxel_size=voxel_size,
    )
