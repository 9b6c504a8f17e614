"""Stratified Transformer (Lai et al., 2022): attention in windows, with a few keys from afar, for packed scenes.

8,019,840 parameters at the size for S3DIS, without a head.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.scene_geometry import GeometryLevel, Neighbors, Transition, scene_geometry
from pointloom.models.stratified_windows import WindowPairs, window_pairs
from pointloom.ops import max_over_points, nearest_weights, own_rows, weighted_rows
from pointloom.ops.pairs import pair_dots, pair_softmax, pair_sums
from pointloom.ops.segments import clouds_of, ranks_within, to_corner
from pointloom.structures import SceneBatch, SceneLevel

STRIDE = 4
"""Of how many places of a level one remains in the next coarser one."""
STEPS_PER_VOXEL = 4
"""Steps of relative places along the edge of a voxel."""
STEM_NEIGHBORS, POOL_NEIGHBORS = 34, 16


class StratifiedTransformer(nn.Module):
    """Encoder and decoder without a head; the finest level lies on the input points, in their order.

    Args:
        dims: Channels per level, finest first.
        depths: Attention blocks per level; 0 at the finest one puts a convolution there instead, as for ScanNet.
        num_heads: Attention heads per level.
        window: Edge of a window at the finest level, in voxels; doubled from level to level.
        key_stride: Of how many places of a level one is also seen from afar.
        drop_path: Largest share of points that go without a branch while training; it rises from block to block.
        voxel_size: Edge in metres of the voxels of which a batch has one point each; windows, steps of relative places
            and the reach of convolutions are multiples of it. The network itself does not thin.

    Note:
        As in the published code: colours in [0, 1] and coordinates from the lowest corner come in, queries, keys and
        values each have learned tables of relative places along the three axes, every second block has windows moved
        by half, coarser levels are farthest points. Other than there: windows begin at the corner of each scene instead
        of the batch's, the stem takes the 34 nearest points instead of any 34 within 2.5 voxels, its kernel points
        are the corners and face centres of a cube instead of optimised ones, a level keeps n / 4 places instead of
        n / 4 + 1, and for ScanNet drop-path rates rise from 0 over the blocks that there are.

    Raises:
        ValueError: The lists have different lengths, or a value does not fit.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        window: int,
        key_stride: int,
        drop_path: float,
        voxel_size: float,
    ) -> None:
        super().__init__()
        if len({len(dims), len(depths), len(num_heads)}) > 1:
            raise ValueError(f"dims {dims}, depths {depths} and num_heads {num_heads} need one value per level")
        if not voxel_size > 0 or key_stride < STRIDE or not 0 <= drop_path < 1:
            raise ValueError(
                f"voxel_size is above 0, key_stride at least {STRIDE} and drop_path in [0, 1), got {voxel_size}, "
                f"{key_stride} and {drop_path}"
            )
        self.dims = list(dims)
        self.voxel_size, self.window, self.key_stride = voxel_size, window, key_stride
        self.stem = _Convolution(6, dims[0], reach=voxel_size)
        self.stem_block = None if depths[0] else _ConvolutionBlock(dims[0], reach=voxel_size)
        rates = iter(torch.linspace(0, drop_path, sum(depths)).tolist())
        places = 4 * window * STEPS_PER_VOXEL
        self.encoder = nn.ModuleList(
            nn.ModuleList(_Block(dim, num_heads=heads, num_places=places, drop_path=next(rates)) for _ in range(depth))
            for dim, depth, heads in zip(dims, depths, num_heads, strict=True)
        )
        self.down = nn.ModuleList(_Down(dims[i], dims[i + 1]) for i in range(len(dims) - 1))
        self.up = nn.ModuleList(_Up(dims[i + 1], dims[i]) for i in range(len(dims) - 1))
        self.apply(_initialise)

    def forward(self, scenes: SceneBatch) -> list[SceneLevel]:
        """Return the decoder's levels, finest first."""
        steps = len(self.dims) - 1
        levels, transitions = scene_geometry(
            scenes.coord,
            scenes.offset,
            strides=[STRIDE] * steps,
            num_neighbors=[STEM_NEIGHBORS, *[POOL_NEIGHBORS] * steps],
        )
        features = self._encode(scenes, levels, transitions)
        outputs = [features[-1]]
        for i in reversed(range(steps)):
            outputs.append(self.up[i](outputs[-1], features[i], transitions[i]))
        return [
            SceneLevel(coord=level.coord, feature=out, offset=level.offset)
            for level, out in zip(levels, reversed(outputs), strict=True)
        ]

    def _encode(self, scenes: SceneBatch, levels: list[GeometryLevel], transitions: list[Transition]) -> list[Tensor]:
        """Return the encoder's features of every level, finest first."""
        features: list[Tensor] = []
        sizes = scenes.offset.diff(prepend=scenes.offset.new_zeros(1))
        known = torch.arange(STEM_NEIGHBORS, device=sizes.device) < sizes.unsqueeze(1)
        known = known[clouds_of(scenes.offset, len(scenes.coord))]  # behind them a small scene repeats its points
        for i, level in enumerate(levels):
            if i == 0:
                given = torch.cat([scenes.color, to_corner(scenes.coord, scenes.offset)], dim=1)
                x = self.stem(given, level.near, known)
                x = x if self.stem_block is None else self.stem_block(x, level.near, known)
            else:
                x = self.down[i - 1](x, transitions[i - 1].finer.index)
            blocks = self.encoder[i]
            pairs = [self._pairs(levels, transitions, i, shifted) for shifted in (False, True)[: len(blocks)]]  # type: ignore[arg-type]
            for number, block in enumerate(blocks):  # type: ignore[arg-type,var-annotated]
                x = block(x, pairs[number % 2])
            features.append(x)
        return features

    def _pairs(
        self, levels: list[GeometryLevel], transitions: list[Transition], number: int, shifted: bool
    ) -> WindowPairs:
        """Return who looks at whom at a level; seen from afar are the first of its farthest points."""
        level, scale = levels[number], 2.0**number * self.voxel_size
        if number == 0 and transitions:
            coarser = levels[1]
            firsts = transitions[0].finer.index[:, 0]  # a place of the next level is its own nearest point
            far = torch.zeros(len(level.coord), dtype=torch.bool, device=level.coord.device)
            far[firsts[_first_of_scene(coarser.offset, level.offset, self.key_stride)]] = True
        else:
            far = _first_of_scene(level.offset, level.offset, self.key_stride)
        return window_pairs(
            level.coord, level.offset, far, size=self.window * scale, step=scale / STEPS_PER_VOXEL, shifted=shifted
        )

    def spread(
        self, levels: list[SceneLevel], coord: Float[Tensor, "q 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, "q d"]:
        """Return the features of the given levels at any points of the same scenes, from the three nearest places."""
        parts = [
            weighted_rows(level.feature, *nearest_weights(coord, offset, level.coord, level.offset)) for level in levels
        ]
        return torch.cat(parts, dim=1)


def _first_of_scene(offset: Int[Tensor, " s"], finer: Int[Tensor, " s"], stride: int) -> Bool[Tensor, " p"]:
    """Return the first rows of every scene, n / ``stride`` + 1 of the n points that ``finer`` has."""
    num = int(offset[-1])
    scene = clouds_of(offset, num)
    wanted = finer.diff(prepend=finer.new_zeros(1)) // stride + 1
    rank = ranks_within(torch.zeros(num, device=offset.device), scene)
    return rank < wanted[scene]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cube_directions() -> Float[Tensor, "15 3"]:
    """Return the middle, and unit vectors to the 6 faces and 8 corners of a cube."""
    axis = torch.tensor([-1.0, 0.0, 1.0])
    places = torch.cartesian_prod(axis, axis, axis)
    kept = places[places.abs().sum(1) != 2]  # the middles of the 12 edges are left out
    return F.normalize(kept, dim=1)


class _Convolution(nn.Module):
    """Convolution with kernel points (KPConv, rigid, linear influence), batch norm, leaky ReLU.

    Args:
        dim_in: Channels of the input.
        dim: Channels of the output.
        reach: Metres at which a kernel point's influence ends; kernel points are 1.5 times as far from the middle.
        norm: Whether batch norm and ReLU follow.
    """

    kernel: Tensor

    def __init__(self, dim_in: int, dim: int, *, reach: float, norm: bool = True) -> None:
        super().__init__()
        self.reach = reach
        self.register_buffer("kernel", 1.5 * reach * _cube_directions(), persistent=False)
        self.weight = nn.Parameter(torch.empty(15 * dim_in, dim))
        nn.init.kaiming_uniform_(self.weight.T, a=5**0.5)
        self.norm = nn.BatchNorm1d(dim, momentum=0.02) if norm else None

    def forward(
        self, feature: Float[Tensor, "p d"], near: Neighbors, known: Bool[Tensor, "p k"]
    ) -> Float[Tensor, "p c"]:
        """Convolve; neighbours that are not ``known`` take no part."""
        distance = torch.cdist(near.relative, self.kernel.expand(len(near.relative), -1, -1))
        influence = (1 - distance / self.reach).clamp_min(0) * known.unsqueeze(2)
        members = (influence.transpose(1, 2).to(feature.dtype) @ feature[near.index]).flatten(1)
        found = members @ self.weight
        return found if self.norm is None else F.leaky_relu(self.norm(found), 0.2)


class _ConvolutionBlock(nn.Module):
    """A convolution on a quarter of the channels between two linear layers, added to the input (KPConv)."""

    def __init__(self, dim: int, *, reach: float) -> None:
        super().__init__()
        inner = dim // 4
        self.enter, self.enter_norm = nn.Linear(dim, inner, bias=False), nn.BatchNorm1d(inner, momentum=0.02)
        self.convolution = _Convolution(inner, inner, reach=reach, norm=False)
        self.leave, self.leave_norm = nn.Linear(inner, dim, bias=False), nn.BatchNorm1d(dim, momentum=0.02)

    def forward(
        self, feature: Float[Tensor, "p c"], near: Neighbors, known: Bool[Tensor, "p k"]
    ) -> Float[Tensor, "p c"]:
        """Mix every point with its neighbours."""
        hidden = F.leaky_relu(self.enter_norm(self.enter(feature)), 0.2)
        hidden = self.convolution(hidden, near, known)
        return feature + F.leaky_relu(self.leave_norm(self.leave(hidden)), 0.2)


class ContextualAttention(nn.Module):
    """Attention between listed pairs with contextual relative places (section 3.3).

    Args:
        dim: Channels.
        num_heads: Heads.
        num_places: Steps of relative places along an axis.
    """

    def __init__(self, dim: int, *, num_heads: int, num_places: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"the channels of a level are a multiple of its heads {num_heads}, got {dim}")
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        shape = (3, num_places, num_heads, dim // num_heads)
        self.query_places, self.key_places, self.value_places = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02)) for _ in range(3)
        )

    def forward(self, x: Float[Tensor, "p c"], pairs: WindowPairs) -> Float[Tensor, "p c"]:
        """Let every point look at the points that it is paired with."""
        with torch.autocast(x.device.type, enabled=False):
            query, key, value = self.qkv(x.float()).view(len(x), 3, self.num_heads, -1).unbind(1)
            query = query * query.shape[-1] ** -0.5
            logit = pair_dots(query, key, pairs.query, pairs.key)
            for axis, place in enumerate(pairs.place.unbind(1)):
                logit = logit + _dots_with_places(query, self.query_places[axis], pairs.query, place)
                logit = logit + _dots_with_places(key, self.key_places[axis], pairs.key, place)
            share = pair_softmax(logit, pairs.query, len(x))
            mixed = pair_sums(share, value, pairs.query, pairs.key, len(x))
            for axis, place in enumerate(pairs.place.unbind(1)):
                mixed = mixed + _sums_of_places(share, self.value_places[axis], pairs.query, place, len(x))
        return self.proj(mixed.flatten(1))


def _dots_with_places(
    rows: Float[Tensor, "p h d"], table: Float[Tensor, "b h d"], row: Int[Tensor, " m"], place: Int[Tensor, " m"]
) -> Float[Tensor, "m h"]:
    """Return the product of every pair's row with the vector of its place, picked from those with all places."""
    dots = torch.einsum("phd,bhd->pbh", rows, table)
    return dots.flatten(0, 1).index_select(0, row * len(table) + place)


def _sums_of_places(
    share: Float[Tensor, "m h"],
    table: Float[Tensor, "b h d"],
    row: Int[Tensor, " m"],
    place: Int[Tensor, " m"],
    num_rows: int,
) -> Float[Tensor, "p h d"]:
    """Return the weighted sum of the vectors of places of every row: weights of equal places first, then vectors."""
    weight = share.new_zeros(num_rows * len(table), share.shape[1]).index_add(0, row * len(table) + place, share)
    return torch.einsum("pbh,bhd->phd", weight.view(num_rows, len(table), -1), table)


class _Block(nn.Module):
    """Attention and an MLP, both added to the input behind a layer norm."""

    def __init__(self, dim: int, *, num_heads: int, num_places: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = ContextualAttention(dim, num_heads=num_heads, num_places=num_places)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "p c"], pairs: WindowPairs) -> Float[Tensor, "p c"]:
        """Refine the features of one level."""
        x = x + self._kept(self.attention(self.norm1(x), pairs))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        """Leave the branch out at some points while training, as the published code does, and scale up the others."""
        if not self.training or self.drop_path == 0:
            return branch
        draws = own_rows(lambda rows: torch.rand(rows, device=branch.device), len(branch))
        return branch * ((draws >= self.drop_path) / (1 - self.drop_path)).to(branch.dtype).unsqueeze(1)


class _Down(nn.Module):
    """From the places of a level to the fewer ones of the next, by the maximum over neighbours."""

    def __init__(self, dim_in: int, dim: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(dim_in), nn.Linear(dim_in, dim, bias=False)

    def forward(self, feature: Float[Tensor, "p d"], index: Int[Tensor, "q k"]) -> Float[Tensor, "q c"]:
        """Apply the layer once per place instead of once per pair; the maximum is the same."""
        return max_over_points(self.linear(self.norm(feature))[index])


class _Up(nn.Module):
    """From a coarser level back to a finer one, added to the encoder's features there."""

    def __init__(self, dim_coarse: int, dim: int) -> None:
        super().__init__()
        self.skip_norm, self.skip = nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.coarse_norm, self.coarse = nn.LayerNorm(dim_coarse), nn.Linear(dim_coarse, dim)

    def forward(
        self, coarse: Float[Tensor, "p d"], skip: Float[Tensor, "q c"], transition: Transition
    ) -> Float[Tensor, "q c"]:
        """Interpolate from the three nearest places of the coarser level and add."""
        hidden = self.coarse(self.coarse_norm(coarse))
        return self.skip(self.skip_norm(skip)) + weighted_rows(hidden, transition.coarser, transition.weight)


def stratified_transformer(*, voxel_size: float = 0.04, drop_path: float = 0.3) -> StratifiedTransformer:
    """Build the network as published for S3DIS."""
    return StratifiedTransformer(
        dims=(48, 96, 192, 384),
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window=4,
        key_stride=8,
        drop_path=drop_path,
        voxel_size=voxel_size,
    )


def stratified_transformer_scannet(*, voxel_size: float = 0.02, drop_path: float = 0.3) -> StratifiedTransformer:
    """Build the network as published for ScanNet: five levels, a convolution at the finest one."""
    return StratifiedTransformer(
        dims=(48, 96, 192, 384, 384),
        depths=(0, 3, 9, 3, 3),
        num_heads=(3, 6, 12, 24, 24),
        window=5,
        key_stride=4,
        drop_path=drop_path,
        voxel_size=voxel_size,
    )


def stratified_transformer_tiny(*, voxel_size: float = 0.08, drop_path: float = 0.0) -> StratifiedTransformer:
    """Build a small network for two CPU cores."""
    return StratifiedTransformer(
        dims=(24, 48, 96, 192),
        depths=(1, 2, 2, 1),
        num_heads=(2, 4, 8, 8),
        window=4,
        key_stride=8,
        drop_path=drop_path,
        voxel_size=voxel_size,
    )
