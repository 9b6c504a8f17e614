"""A small PointNet (Qi et al., 2017, without its transform nets): the supervised yardstick of every table."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pointloom.ops import max_over_points
from pointloom.structures import Groups, Tokens


class PointNetEncoder(nn.Module):
    """Embed every point with a shared MLP, then take the maximum; a patch of this encoder is a single point."""

    def __init__(self, *, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Linear(c_in, c_out, bias=False), nn.BatchNorm1d(c_out), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)
        self.dim = widths[-1]

    @property
    def dims(self) -> Sequence[int]:
        """One level: the width of the last layer."""
        return (self.dim,)

    @property
    def global_dim(self) -> int:
        """Width of the maximum."""
        return self.dim

    def group(self, coord: Float[Tensor, "b n 3"]) -> list[Groups]:
        """Make every point a patch of its own."""
        B, N, _ = coord.shape
        index = torch.arange(N, device=coord.device).expand(B, N).unsqueeze(-1)
        return [Groups(centers=coord, neighborhood=torch.zeros_like(coord).unsqueeze(2), index=index)]

    def forward(self, groups: list[Groups], masks: list[Bool[Tensor, "b g"]] | None = None) -> list[Tokens]:
        """Embed all points.

        Raises:
            ValueError: ``masks`` is given; this encoder is supervised only.
        """
        if masks is not None:
            raise ValueError("pointnet has no masked form; pre-train a point_mae encoder instead")
        (level,) = groups
        B, N, _ = level.centers.shape
        return [Tokens(tokens=self.mlp(level.centers.flatten(0, 1)).view(B, N, -1), centers=level.centers)]

    def pool(self, tokens: list[Tokens]) -> Float[Tensor, "b d"]:
        """Take the maximum over points."""
        return max_over_points(tokens[0].tokens)


def pointnet(*, class_token: bool = False) -> PointNetEncoder:
    """Build the PointNet of the tables: 64, 128, 256 channels.

    Raises:
        ValueError: A class token is asked for.
    """
    if class_token:
        raise ValueError("pointnet has no class token")
    return PointNetEncoder(widths=(64, 128, 256))
