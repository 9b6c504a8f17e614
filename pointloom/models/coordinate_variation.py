"""The completion head of MM-3DScene: every place becomes a few points nearby (section 3.3, equation 2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointloom.ops import norm_relu
from pointloom.structures import SceneLevel


class CoordinateVariation(nn.Module):
    """Repeat every place and move the copies: two small networks fold a grid into offsets (FoldingNet).

    Args:
        dim: Width of the features.
        hidden: Width of the first hidden layer; the second one has half of it.
        grid: Copies along both axes of the grid; 2 x 2 for Point Transformer, 2 x 1 for VoteNet in the official code.
        extent: The grid's axes go from minus this to this; 1 and 0.2 in the official code.
        reads_coord: The networks also see where the place is, in metres.
    """

    grid: Tensor

    def __init__(self, dim: int, *, hidden: int, grid: tuple[int, int], extent: float, reads_coord: bool) -> None:
        super().__init__()
        if min(grid) < 1 or hidden < 2:
            raise ValueError(f"a head needs at least one copy per axis and two hidden channels, got {grid}, {hidden}")
        self.reads_coord = reads_coord
        axes = [torch.linspace(-extent, extent, num) for num in grid]
        self.register_buffer("grid", torch.cartesian_prod(*axes), persistent=False)
        given = dim + 3 * reads_coord
        self.fold = _Folding(given, 2, hidden)
        self.move = _Folding(given, 3, hidden)

    def forward(self, level: SceneLevel) -> Float[Tensor, "q 3"]:
        """Return as many points per place as the grid has, one place after the other."""
        feature = torch.cat([level.feature, level.coord], dim=1) if self.reads_coord else level.feature
        grid = self.grid.expand(len(feature), -1, -1)
        offset = self.move(feature, self.fold(feature, grid))
        return (level.coord.unsqueeze(1) + offset.float()).flatten(0, 1)


class _Folding(nn.Module):
    """Three layers on a feature beside something that differs between the copies of a place.

    The first layer is applied to the feature once per place, not once per copy.
    """

    def __init__(self, dim: int, extra: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear1, self.norm1 = nn.Linear(dim + extra, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, hidden // 2), nn.BatchNorm1d(hidden // 2)
        self.linear3 = nn.Linear(hidden // 2, 3)

    def forward(self, feature: Float[Tensor, "p c"], extra: Float[Tensor, "p u e"]) -> Float[Tensor, "p u 3"]:
        """Return three numbers per copy."""
        weight = self.linear1.weight
        shared = nn.functional.linear(feature, weight[:, : self.dim], self.linear1.bias)
        hidden = norm_relu(nn.functional.linear(extra, weight[:, self.dim :]), shared, self.norm1)
        hidden = self.linear2(hidden)
        hidden = norm_relu(hidden, hidden.new_zeros(hidden.shape[0], hidden.shape[2]), self.norm2)
        return self.linear3(hidden)
