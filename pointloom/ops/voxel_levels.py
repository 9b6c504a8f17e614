"""The resolutions of packed scenes that one network works on, with everything that is computed only once for them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops.sparse_conv import KernelMap, child_map, neighbor_map
from pointloom.ops.voxels import Voxels


class VoxelLevels:
    """Voxels at several resolutions, the finest first, each twice as large as the one before.

    Kernel maps and orders are made when they are first asked for and live as long as this object.

    Args:
        finest: The smallest voxels.
        depth: Number of resolutions.
    """

    def __init__(self, finest: Voxels, *, depth: int) -> None:
        self.voxels = [finest]
        self.parents: list[Int[Tensor, " v"]] = []
        for _ in range(depth - 1):
            coarser, parent = self.voxels[-1].parents()
            self.voxels.append(coarser)
            self.parents.append(parent)
        self._neighbors: dict[tuple[int, int], KernelMap] = {}
        self._children: dict[int, KernelMap] = {}
        self._orders: dict[tuple[int, str], Int[Tensor, " v"]] = {}

    def __len__(self) -> int:
        """Number of resolutions."""
        return len(self.voxels)

    def neighbors(self, level: int, kernel_size: int = 3) -> KernelMap:
        """Return the map of submanifold convolutions at a resolution."""
        if (level, kernel_size) not in self._neighbors:
            self._neighbors[level, kernel_size] = neighbor_map(self.voxels[level], kernel_size)
        return self._neighbors[level, kernel_size]

    def down(self, level: int) -> KernelMap:
        """Return the map of the strided convolution from a resolution to the next coarser one."""
        if level not in self._children:
            finer, coarser = self.voxels[level], self.voxels[level + 1]
            self._children[level] = child_map(finer, self.parents[level], len(coarser.key))
        return self._children[level]

    def up(self, level: int) -> KernelMap:
        """Return the map of the transposed convolution from the next coarser resolution back to ``level``."""
        return self.down(level).reversed()

    def order(self, level: int, curve: str) -> Int[Tensor, " v"]:
        """Return the rows of a resolution in the order of a curve."""
        if (level, curve) not in self._orders:
            self._orders[level, curve] = self.voxels[level].order(curve)
        return self._orders[level, curve]

    def subset(self, kept: Bool[Tensor, " v"]) -> "VoxelLevels":
        """Keep some of the smallest voxels, in the same grid; coarser ones stay while they have one of them.

        Raises:
            ValueError: A scene would be empty.
        """
        return VoxelLevels(self.voxels[0].subset(kept), depth=len(self))

    def spread_down(self, coarsest: Bool[Tensor, " v"]) -> list[Bool[Tensor, " _"]]:
        """Return what every voxel inherits from its ancestor at the coarsest resolution, finest first."""
        levels = [coarsest]
        for parent in reversed(self.parents):
            levels.append(levels[-1][parent])
        return levels[::-1]

    def means(self, value: Float[Tensor, "v c"]) -> list[Float[Tensor, "_ c"]]:
        """Return, at every resolution, the mean over the smallest voxels inside of each voxel."""
        total, count = value, torch.ones_like(value[:, :1])
        levels = [value]
        for parent, coarser in zip(self.parents, self.voxels[1:], strict=True):
            total = total.new_zeros(len(coarser.key), value.shape[1]).index_add_(0, parent, total)
            count = count.new_zeros(len(coarser.key), 1).index_add_(0, parent, count)
            levels.append(total / count)
        return levels
