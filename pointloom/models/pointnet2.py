"""PointNet++ (Qi et al., 2017) on dense scenes: set abstraction, feature propagation, VoteNet's backbone."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pointloom.models.seeds import SeedEncoder, Seeds
from pointloom.ops import ball_query, farthest_point_sampling, gather_points, max_over_points, norm_relu
from pointloom.ops.interpolation import nearest_weights, weighted_rows


class SharedMlp(nn.Sequential):
    """Linear layers, each with batch normalisation and ReLU, applied to every point on its own.

    Args:
        widths: Of the input, then of the layers.
        bias: Whether the layers have one; the normalisation takes it away, but published weights count it.
        dropout: Rate behind every layer.
    """

    def __init__(self, *widths: int, bias: bool = False, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [_linear(c_in, c_out, bias=bias), nn.BatchNorm1d(c_out), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers)

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch d"]:
        """Transform every row; batch statistics are over all rows."""
        rows = x.flatten(0, -2)
        for layer in self:
            rows = layer(rows)
        return rows.unflatten(0, x.shape[:-1])


class SetAbstraction(nn.Module):
    """Features of the points around centres, transformed and reduced to their maximum (section 3.2).

    Args:
        channels: Width of the points' features, 0 for bare coordinates.
        widths: Of the layers.
        radius: Of the balls, metres; relative coordinates are divided by it.
        num_neighbors: Points per ball.

    Note:
        The first layer is linear in [(point - centre) / radius, feature], so it is applied once per point and once per
        centre instead of once per pair; the result is the same up to rounding. Its part for coordinates is computed in
        single precision whatever the rest is computed in.
    """

    def __init__(self, channels: int, *, widths: Sequence[int], radius: float, num_neighbors: int) -> None:
        super().__init__()
        self.radius, self.num_neighbors = radius, num_neighbors
        self.first = _linear(3 + channels, widths[0])
        self.rest = nn.ModuleList(_linear(c_in, c_out) for c_in, c_out in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)

    def forward(
        self,
        centers: Float[Tensor, "b m 3"],
        coord: Float[Tensor, "b n 3"],
        feature: Float[Tensor, "b n c"] | None,
    ) -> Float[Tensor, "b m d"]:
        """Return a vector per centre."""
        index = ball_query(centers, coord, radius=self.radius, num=self.num_neighbors)
        weight = self.first.weight
        with torch.autocast(coord.device.type, enabled=False):
            of_place = weight[:, :3].float() / self.radius
            per_point, per_center = coord.float() @ of_place.T, centers.float() @ of_place.T
        if feature is not None:
            per_point = per_point + F.linear(feature, weight[:, 3:])
        x = gather_points(per_point, index).flatten(0, 1)
        norms = [cast(nn.BatchNorm1d, norm) for norm in self.norms]
        x = norm_relu(x, -per_center.flatten(0, 1), norms[0])
        for layer, norm in zip(self.rest, norms[1:], strict=True):
            x = layer(x)
            x = norm_relu(x, torch.zeros_like(x[:, 0]), norm)
        return max_over_points(x).view(*centers.shape[:2], -1)


class FeaturePropagation(nn.Module):
    """Features carried to finer points, joined to what is known there, and transformed (section 3.4).

    Args:
        widths: Of the joined features, then of the layers.

    Note:
        The three nearest count by inverse distance, as in the code of VoteNet; the paper squares distances.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.mlp = SharedMlp(*widths)

    def forward(
        self,
        fine: Float[Tensor, "b n 3"],
        fine_feature: Float[Tensor, "b n c"],
        coarse: Float[Tensor, "b m 3"],
        coarse_feature: Float[Tensor, "b m d"],
    ) -> Float[Tensor, "b n e"]:
        """Return a vector per fine point."""
        (B, N, _), M = fine.shape, coarse.shape[1]
        scene = torch.arange(1, B + 1, device=fine.device)
        index, weight = nearest_weights(fine.flatten(0, 1), scene * N, coarse.flatten(0, 1), scene * M)
        carried = weighted_rows(coarse_feature.flatten(0, 1), index, weight).view(B, N, -1)
        return self.mlp(torch.cat([carried, fine_feature], dim=-1))


class PointNet2Encoder(SeedEncoder):
    """VoteNet's backbone: four set abstractions, two feature propagations back to the points of the second.

    Args:
        num_points: Per level; every level is a beginning of the first one's farthest point samples, which is what
            sampling anew would choose.
        radii: Of the balls per level, metres.
        num_neighbors: Points per ball and level.
        widths: Layers per level.
        up_width: Width of both propagations, and of the seeds.
        color: Look at colours.
        height: Look at the height above the floor.
        voxel_size: See ``SceneEncoder``.
    """

    def __init__(
        self,
        *,
        num_points: tuple[int, int, int, int],
        radii: tuple[float, float, float, float],
        num_neighbors: tuple[int, int, int, int],
        widths: Sequence[Sequence[int]],
        up_width: int,
        color: bool,
        height: bool,
        voxel_size: float,
    ) -> None:
        super().__init__(dim=up_width, color=color, height=height, voxel_size=voxel_size)
        self.num_points = num_points
        channels = [self.num_point_features, *(each[-1] for each in widths)]
        self.down = nn.ModuleList(
            SetAbstraction(c, widths=w, radius=radius, num_neighbors=k)
            for c, w, radius, k in zip(channels[:-1], widths, radii, num_neighbors, strict=True)
        )
        self.up = nn.ModuleList(
            [
                FeaturePropagation(channels[4] + channels[3], up_width, up_width),
                FeaturePropagation(up_width + channels[2], up_width, up_width),
            ]
        )

    @property
    def num_samples(self) -> int:
        """Points of the first level."""
        return self.num_points[0]

    def embed(
        self,
        coord: Float[Tensor, "b n 3"],
        color: Float[Tensor, "b n 3"],
        height: Float[Tensor, "b n"],
        normal: Float[Tensor, "b n 3"],  # noqa: ARG002
    ) -> Seeds:
        """Return the second level's points with what all levels know of them.

        Raises:
            ValueError: Scenes have fewer points than the first level.
        """
        index = farthest_point_sampling(coord, self.num_points[0])
        samples = gather_points(coord, index)
        places, features = [coord], [self.point_features(color, height)]
        for layer, number in zip(self.down, self.num_points, strict=True):
            places.append(samples[:, :number])
            features.append(layer(places[-1], places[-2], features[-1]))
        feature = self.up[0](places[3], features[3], places[4], features[4])
        feature = self.up[1](places[2], features[2], places[3], feature)
        return Seeds(coord=places[2], feature=feature, index=index[:, : self.num_points[1]])


def pointnet2_votenet(
    *, color: bool = False, height: bool = True, voxel_size: float = 0.02, width: int = 256
) -> PointNet2Encoder:
    """Build the backbone of VoteNet (section 5.1 and code): 1,024 seeds."""
    half = width // 2
    return PointNet2Encoder(
        num_points=(2048, 1024, 512, 256),
        radii=(0.2, 0.4, 0.8, 1.2),
        num_neighbors=(64, 32, 16, 16),
        widths=((half // 2, half // 2, half), (half, half, width), (half, half, width), (half, half, width)),
        up_width=width,
        color=color,
        height=height,
        voxel_size=voxel_size,
    )


def pointnet2_tiny(
    *, color: bool = False, height: bool = True, voxel_size: float = 0.02, num_seeds: int = 256, width: int = 64
) -> PointNet2Encoder:
    """Build a small backbone of the same form for two cores."""
    half = width // 2
    return PointNet2Encoder(
        num_points=(2 * num_seeds, num_seeds, num_seeds // 2, num_seeds // 4),
        radii=(0.3, 0.5, 0.9, 1.4),
        num_neighbors=(32, 16, 16, 16),
        widths=((half, half), (width, width), (width, width), (width, width)),
        up_width=width,
        color=color,
        height=height,
        voxel_size=voxel_size,
    )


def _linear(c_in: int, c_out: int, *, bias: bool = False) -> nn.Linear:
    layer = nn.Linear(c_in, c_out, bias=bias)
    nn.init.kaiming_normal_(layer.weight)
    return layer
