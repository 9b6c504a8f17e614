"""HUNet: the hybrid U-Net of Masked Scene Modeling (MSM, section 5.1): sparse convolutions, attention below."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointloom.models.sparse_layers import AttentionBlock, Branch, ConvolutionBlock, RMSNorm, SparseConvolution
from pointloom.models.voxel_features import as_scene_levels, checked_sampling, spread_levels, voxel_input
from pointloom.ops.curves import CURVES
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.structures import SceneBatch, SceneLevel

BLOCKS = ("both", "convolution", "attention")
_ORDER = tuple(CURVES)


class Stage(nn.Module):
    """The blocks of one resolution: convolutions first, then attention, every block along another curve.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        window: As in ``AttentionBlock``.
        dropout: As in ``AttentionBlock``.
        convolution_paths: Drop-path rate of every convolution block.
        attention_paths: Drop-path rate of every attention block.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window: int,
        dropout: float,
        convolution_paths: Sequence[float],
        attention_paths: Sequence[float],
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(ConvolutionBlock(dim, drop_path=rate) for rate in convolution_paths)
        self.attentions = nn.ModuleList(
            AttentionBlock(dim, num_heads=num_heads, window=window, dropout=dropout, drop_path=rate)
            for rate in attention_paths
        )

    def forward(self, x: Float[Tensor, "p c"], levels: VoxelLevels, level: int) -> Float[Tensor, "p c"]:
        """Mix voxels; while training the curves come in random order, else always in the same one."""
        for block in self.convolutions:
            x = block(x, levels, level)
        curves = torch.randperm(len(_ORDER)).tolist() if self.training and self.attentions else range(len(_ORDER))
        for block, curve in zip(self.attentions, [*curves] * len(self.attentions), strict=False):
            x = block(x, levels, level, _ORDER[curve])
        return x


class Down(nn.Module):
    """Convolution of size and stride 2, norm."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.convolution = SparseConvolution(dim, out_dim, kernel_size=2, bias=True)
        self.norm = RMSNorm(out_dim)

    def forward(self, x: Float[Tensor, "n c"], levels: VoxelLevels, level: int) -> Float[Tensor, "m d"]:
        """Bring features from ``level`` to the next coarser resolution."""
        return self.norm(self.convolution(x, levels.down(level)))


class Up(nn.Module):
    """Norm and transposed convolution, times a learned gain, added to the encoder's features at that resolution."""

    def __init__(self, dim: int, out_dim: int, *, skip_dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.convolution = SparseConvolution(dim, out_dim, kernel_size=2, bias=True)
        self.skip_norm = RMSNorm(skip_dim)
        self.skip = nn.Linear(skip_dim, out_dim)
        self.branch = Branch(out_dim, gain=1.0, drop_path=0.0)

    def forward(
        self, x: Float[Tensor, "m c"], encoded: Float[Tensor, "n s"], levels: VoxelLevels, level: int
    ) -> Float[Tensor, "n d"]:
        """Bring features back to ``level``, where ``encoded`` is."""
        upsampled = self.convolution(self.norm(x), levels.up(level))
        return self.branch(upsampled, self.skip(self.skip_norm(encoded)), levels.voxels[level])


class HUNet(nn.Module):
    """Encode scenes as voxel features at several resolutions.

    Inputs are colour (from [0, 1] to [-1, 1]) and normal of the first point in each voxel; coordinates are none.

    Args:
        voxel_size: Edge of the finest voxels in metres.
        dims: Channels of the encoder per resolution, finest first.
        decoder_dims: Channels of the decoder, finest first; the coarsest equals the encoder's.
        num_heads: Attention heads per resolution.
        convolutions: Convolution blocks per resolution, in encoder and decoder each.
        attentions: Attention blocks per resolution, likewise.
        window: Voxels along the curve that a voxel attends to.
        drop_path: Largest drop-path rate, reached at the coarsest resolution.
        attention_dropout: Share of attention weights dropped while training.
        sampling: How ``spread`` interpolates, see ``voxel_features.spread_levels``.

    Note:
        The published code drops attention weights and permutes the curves when it is used, too; here both happen only
        while training, so that features are the same in every run.

    Raises:
        ValueError: The numbers do not fit each other.
    """

    def __init__(
        self,
        *,
        voxel_size: float,
        dims: Sequence[int],
        decoder_dims: Sequence[int],
        num_heads: Sequence[int],
        convolutions: Sequence[int],
        attentions: Sequence[int],
        window: int,
        drop_path: float,
        attention_dropout: float,
        sampling: str,
    ) -> None:
        super().__init__()
        lengths = {len(given) for given in (dims, decoder_dims, num_heads, convolutions, attentions)}
        if len(lengths) != 1 or dims[-1] != decoder_dims[-1]:
            raise ValueError("all numbers per resolution need one length, and the coarsest widths must be equal")
        if not voxel_size > 0:
            raise ValueError(f"voxel_size must be above 0, got {voxel_size}")
        self.voxel_size = voxel_size
        self.dims = tuple(decoder_dims)
        self.encoder_dims = tuple(dims)
        self.sampling = checked_sampling(sampling)
        paths = _paths(convolutions, attentions, drop_path)

        def stage(dim: int, level: int, rates: Sequence[float]) -> Stage:
            return Stage(
                dim,
                num_heads=num_heads[level],
                window=window,
                dropout=attention_dropout,
                convolution_paths=rates[: convolutions[level]],
                attention_paths=rates[convolutions[level] :],
            )

        depth = len(dims)
        self.stem = nn.Sequential(nn.Linear(6, dims[0]), RMSNorm(dims[0]))
        self.down = nn.ModuleList(Down(dims[level], dims[level + 1]) for level in range(depth - 1))
        self.encoder = nn.ModuleList(stage(dims[level], level, paths[level]) for level in range(depth))
        self.decoder_norm = RMSNorm(dims[-1])
        self.up = nn.ModuleList(
            Up(decoder_dims[level + 1], decoder_dims[level], skip_dim=dims[level]) for level in range(depth - 1)
        )
        self.decoder = nn.ModuleList(stage(decoder_dims[level], level, paths[level][::-1]) for level in range(depth))

    def forward(self, scenes: SceneBatch) -> list[SceneLevel]:
        """Return the decoder's features, finest first; places are the middles of voxels."""
        levels, _, feature = self.voxelize(scenes)
        return as_scene_levels(levels, self.features(levels, feature))

    def voxelize(self, scenes: SceneBatch) -> tuple[VoxelLevels, Int[Tensor, " v"], Float[Tensor, "v 6"]]:
        """Return the voxels of scenes at all resolutions, the point of each of the finest ones, and its input."""
        return voxel_input(scenes, self.voxel_size, depth=len(self.dims))

    def features(self, levels: VoxelLevels, feature: Float[Tensor, "v 6"]) -> list[Float[Tensor, "_ _"]]:
        """Return the decoder's features, finest first, from the input of the finest voxels."""
        return self.decode(levels, self.encode(levels, self.stem(feature)))

    def encode(self, levels: VoxelLevels, embedded: Float[Tensor, "v c"]) -> list[Float[Tensor, "_ _"]]:
        """Return the encoder's features, finest first, of what the stem made of the input."""
        x, encoded = embedded, []
        for level, stage in enumerate(self.encoder):
            if level > 0:
                x = self.down[level - 1](x, levels, level - 1)
            x = stage(x, levels, level)
            encoded.append(x)
        return encoded

    def decode(self, levels: VoxelLevels, encoded: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "_ _"]]:
        """Return the decoder's features, finest first, from the encoder's at all voxels of all resolutions."""
        last = len(encoded) - 1
        x = self.decoder[last](self.decoder_norm(encoded[last]), levels, last)
        decoded = [x]
        for level in range(last - 1, -1, -1):
            x = self.decoder[level](self.up[level](x, encoded[level], levels, level), levels, level)
            decoded.append(x)
        return decoded[::-1]

    def spread(
        self, levels: list[SceneLevel], coord: Float[Tensor, "q 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, "q d"]:
        """Return the features of all resolutions at any points, tri-linear between voxels (MSM, section 3)."""
        return spread_levels(levels, coord, offset, voxel_size=self.voxel_size, sampling=self.sampling)


def _paths(convolutions: Sequence[int], attentions: Sequence[int], highest: float) -> list[list[float]]:
    """Return the drop-path rates per resolution, rising over all blocks."""
    counts = [a + b for a, b in zip(convolutions, attentions, strict=True)]
    rates = np.linspace(0, highest, sum(counts)).tolist()
    return [rates[sum(counts[:i]) : sum(counts[: i + 1])] for i in range(len(counts))]


def _chosen(blocks: str, convolutions: Sequence[int], attentions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of blocks per resolution: as given, without attention, or with attention instead."""
    if blocks not in BLOCKS:
        raise ValueError(f"unknown blocks {blocks!r}; known: {', '.join(BLOCKS)}")
    if blocks == "attention":
        return [0] * len(convolutions), [a + b for a, b in zip(convolutions, attentions, strict=True)]
    return list(convolutions), list(attentions) if blocks == "both" else [0] * len(attentions)


def hunet_large(
    *,
    voxel_size: float = 0.02,
    drop_path: float = 0.2,
    attention_dropout: float = 0.1,
    sampling: str = "trilinear",
) -> HUNet:
    """Build the network of the MSM paper and its released weights: 67,610,272 parameters, 928 channels per point."""
    return HUNet(
        voxel_size=voxel_size,
        dims=(32, 64, 128, 256, 384),
        decoder_dims=(64, 96, 128, 256, 384),
        num_heads=(4, 8, 16, 32, 48),
        convolutions=(2, 2, 2, 2, 2),
        attentions=(0, 0, 0, 2, 2),
        window=1024,
        drop_path=drop_path,
        attention_dropout=attention_dropout,
        sampling=sampling,
    )


def hunet_ablation(
    *,
    voxel_size: float = 0.04,
    drop_path: float = 0.2,
    attention_dropout: float = 0.1,
    blocks: str = "both",
    sampling: str = "trilinear",
) -> HUNet:
    """Build the network of MSM's ablations: one resolution fewer, voxels of 4 cm; ``blocks`` as in table 10.

    Note:
        The table with its widths is lost; these keep the coarsest four of the large network.
    """
    convolutions, attentions = _chosen(blocks, (2, 2, 2, 2), (0, 0, 2, 2))
    return HUNet(
        voxel_size=voxel_size,
        dims=(64, 128, 256, 384),
        decoder_dims=(96, 128, 256, 384),
        num_heads=(8, 16, 32, 48),
        convolutions=convolutions,
        attentions=attentions,
        window=1024,
        drop_path=drop_path,
        attention_dropout=attention_dropout,
        sampling=sampling,
    )


def hunet_tiny(
    *,
    voxel_size: float = 0.05,
    drop_path: float = 0.05,
    attention_dropout: float = 0.0,
    blocks: str = "both",
    sampling: str = "trilinear",
) -> HUNet:
    """Build a network for two CPU cores: four resolutions of 16 to 96 channels, one block of each kind."""
    convolutions, attentions = _chosen(blocks, (1, 1, 1, 1), (0, 0, 1, 1))
    return HUNet(
        voxel_size=voxel_size,
        dims=(16, 32, 64, 96),
        decoder_dims=(32, 48, 64, 96),
        num_heads=(2, 4, 8, 12),
        convolutions=convolutions,
        attentions=attentions,
        window=256,
        drop_path=drop_path,
        attention_dropout=attention_dropout,
        sampling=sampling,
    )
