"""Layers on the features of occupied voxels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.ops.gather import own_rows
from pointloom.ops.sparse_conv import KernelMap, sparse_convolution
from pointloom.ops.voxel_levels import VoxelLevels
from pointloom.ops.voxels import Voxels
from pointloom.ops.window_attention import window_attention

_EPS = 1e-4  # added to the root mean square itself, as in the published code


class RMSNorm(nn.Module):
    """Divide by the root mean square over the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "p c"]) -> Float[Tensor, "p c"]:
        """Normalise every row, in float32 or better."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        return x / (rms + _EPS) * self.scale


class SparseConvolution(nn.Module):
    """Weights of a convolution over occupied voxels; which voxels meet is the map's business.

    Args:
        dim: Channels of the input.
        out_dim: Channels of the output.
        kernel_size: Voxels along each side of the kernel.
        bias: Whether a learned vector is added.
    """

    def __init__(self, dim: int, out_dim: int, *, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, kernel_size, kernel_size, kernel_size, dim))
        bound = 1 / math.sqrt(dim * kernel_size**3)  # that of torch's dense convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = nn.Parameter(torch.empty(out_dim).uniform_(-bound, bound)) if bias else None

    def forward(self, feature: Float[Tensor, "n c"], kernel_map: KernelMap) -> Float[Tensor, "m d"]:
        """Convolve."""
        out = sparse_convolution(feature, self.weight, kernel_map)
        return out if self.bias is None else out + self.bias


class Branch(nn.Module):
    """How a residual branch is added: times a learned gain per channel, or, while training, in some scenes not at all.

    Args:
        dim: Channels.
        gain: First value of the gain.
        drop_path: Share of scenes that go without the branch while training; the others are scaled up.
    """

    def __init__(self, dim: int, *, gain: float, drop_path: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((dim,), gain))
        self.drop_path = drop_path

    def forward(self, branch: Float[Tensor, "p c"], base: Float[Tensor, "p c"], voxels: Voxels) -> Float[Tensor, "p c"]:
        """Return ``base`` with the branch."""
        branch = branch * self.gain
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            draws = own_rows(lambda rows: torch.rand(rows, device=base.device), len(voxels.offset))
            kept = (draws < keep) / keep
            branch = branch * kept.to(branch.dtype)[voxels.scene, None]
        return base + branch


class ConvolutionBlock(nn.Module):
    """Norm, 3^3 convolution, GELU, 3^3 convolution, norm, added to the input (MSM's released code: ResNet block)."""

    def __init__(self, dim: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.first = SparseConvolution(dim, dim, kernel_size=3, bias=False)
        self.second = SparseConvolution(dim, dim, kernel_size=3, bias=False)
        self.last_norm = RMSNorm(dim)
        self.branch = Branch(dim, gain=0.1, drop_path=drop_path)

    def forward(self, x: Float[Tensor, "p c"], levels: VoxelLevels, level: int) -> Float[Tensor, "p c"]:
        """Mix every voxel with its neighbours."""
        neighbors = levels.neighbors(level)
        hidden = self.second(F.gelu(self.first(self.norm(x), neighbors)), neighbors)
        return self.branch(self.last_norm(hidden), x, levels.voxels[level])


class AttentionBlock(nn.Module):
    """Windowed attention along a curve and a gated MLP, both added to the input; no positions, no biases.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        window: Voxels along the curve that a voxel attends to, half of them on each side.
        dropout: Share of attention weights dropped while training.
        drop_path: As in ``Branch``.
    """

    def __init__(self, dim: int, *, num_heads: int, window: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.reach = window // 2
        self.dropout = dropout
        self.norm = RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim, bias=False)
        self.branch = Branch(dim, gain=0.1, drop_path=drop_path)
        self.mlp_norm = RMSNorm(dim)
        self.widen = nn.Linear(dim, 8 * dim, bias=False)
        self.narrow = nn.Linear(4 * dim, dim, bias=False)
        self.mlp_branch = Branch(dim, gain=0.1, drop_path=drop_path)

    def forward(self, x: Float[Tensor, "p c"], levels: VoxelLevels, level: int, curve: str) -> Float[Tensor, "p c"]:
        """Mix every voxel with those around it on the curve."""
        voxels, order = levels.voxels[level], levels.order(level, curve)
        query, key, value = self.qkv(self.norm(x)[order]).view(len(x), 3, self.num_heads, -1).unbind(1)
        dropout = self.dropout if self.training else 0.0
        mixed = window_attention(query, key, value, voxels.offset, reach=self.reach, dropout=dropout)
        mixed = torch.empty_like(mixed).index_copy(0, order, mixed).flatten(1)
        x = self.branch(self.proj(mixed), x, voxels)
        gate, hidden = self.widen(self.mlp_norm(x)).chunk(2, dim=-1)
        return self.mlp_branch(self.narrow(F.gelu(gate) * hidden), x, voxels)
