"""What detectors need of a scene encoder: features at farthest point samples, the same number in every scene."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pointloom.ops.interpolation import nearest_weights, weighted_rows
from pointloom.structures import SceneBatch, SceneLevel

FLOOR_QUANTILE = 0.0099
"""VoteNet's floor: the 0.99-th percentile of z, so almost its minimum."""

_MEAN_COLOR = (109.8, 97.2, 83.8)


@dataclass(frozen=True)
class Seeds:
    """Features at some of the points of dense scenes.

    Attributes:
        coord: Where they are, metres.
        feature: One vector each.
        index: Which of the scene's points they are.
    """

    coord: Float[Tensor, "b t 3"]
    feature: Float[Tensor, "b t c"]
    index: Int[Tensor, "b t"]


class SeedEncoder(nn.Module, ABC):
    """A ``SceneEncoder`` with one level of seeds, the same number in every scene.

    Args:
        dim: Width of the seeds' features.
        color: Whether it looks at colours.
        height: Whether it looks at the height above the floor.
        voxel_size: See ``SceneEncoder``.
    """

    def __init__(self, *, dim: int, color: bool, height: bool, voxel_size: float) -> None:
        super().__init__()
        self.dim, self.color, self.height, self.voxel_size = dim, color, height, voxel_size

    @property
    def dims(self) -> Sequence[int]:
        """One level."""
        return (self.dim,)

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """Points that a scene must have, as many are sampled."""

    @abstractmethod
    def embed(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],
        height: Float[Tensor, "b n"],
        normal: Float[Tensor, "b n 3"],
    ) -> Seeds:
        """Return the seeds of dense scenes.

        Args:
            coord: Metres, +Z up.
            color: In [0, 1].
            height: Metres above the floor.
            normal: Unit normals, 0 where unknown.
        """

    def forward(self, scenes: SceneBatch) -> list[SceneLevel]:
        """Return one level: the seeds; scenes with fewer points than the largest, or than sampled, repeat theirs."""
        sizes = scenes.offset.diff(prepend=scenes.offset.new_zeros(1))
        turn = torch.arange(max(int(sizes.max()), self.num_samples), device=sizes.device) % sizes.unsqueeze(1)
        index = turn + (scenes.offset - sizes).unsqueeze(1)
        coord = scenes.coord[index]
        seeds = self.embed(coord, scenes.color[index], height_above_floor(coord), scenes.normal[index])
        offset = torch.arange(1, len(sizes) + 1, device=coord.device) * seeds.coord.shape[1]
        return [SceneLevel(coord=seeds.coord.flatten(0, 1), feature=seeds.feature.flatten(0, 1), offset=offset)]

    def spread(
        self, levels: list[SceneLevel], coord: Float[Tensor, "q 3"], offset: Int[Tensor, " s"]
    ) -> Float[Tensor, "q d"]:
        """Return the features at any points, from their three nearest seeds."""
        (level,) = levels
        index, weight = nearest_weights(coord, offset, level.coord, level.offset)
        return weighted_rows(level.feature, index, weight)

    def point_features(
        self, color: Float[Tensor, "b n 3"], height: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n c"] | None:
        """Return what is known of points beside where they are; None where the encoder looks at nothing else."""
        parts = []
        if self.color:
            parts.append((color * 255 - color.new_tensor(_MEAN_COLOR)) / 256)
        if self.height:
            parts.append(height.unsqueeze(-1))
        return torch.cat(parts, dim=-1) if parts else None

    @property
    def num_point_features(self) -> int:
        """Width of ``point_features``."""
        return 3 * self.color + self.height


def height_above_floor(coord: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
    """Return metres above the lowest hundredth part of every scene's points (VoteNet, code)."""
    z = coord[..., 2]
    return z - z.quantile(FLOOR_QUANTILE, dim=1, keepdim=True)
