"""CUDA kernels of the package pointnet2_ops, where a user has compiled it; it is neither needed nor installed here.

They take clouds of one size, float32 and contiguous, and return 32-bit indices. Where several points are equally far or
near, and where rounding decides, they may choose another one than our kernels do.
"""

from typing import Any

from torch import Tensor

NEAR_ORIGIN = 1e-3
"""Points with a squared norm of at most this are never chosen by the package's farthest point sampling."""


def _package() -> Any:
    from pointnet2_ops import pointnet2_utils

    return pointnet2_utils


def farthest_points(coord: Tensor, num: int) -> Tensor:
    """Return ``num`` indices per cloud of ``coord`` (b, n, 3), from index 0 on, with the near-origin rule."""
    return _package().furthest_point_sample(coord, num).long()


def three_nearest(query: Tensor, coord: Tensor) -> Tensor:
    """Return the 3 points of ``coord`` (b, n, 3) nearest to every query (b, m, 3), nearest first."""
    return _package().three_nn(query, coord)[1].long()


def in_ball(query: Tensor, coord: Tensor, *, radius: float, num: int) -> Tensor:
    """Return the first ``num`` points of ``coord`` (b, n, 3) inside the ball around every query (b, m, 3)."""
    return _package().ball_query(radius, num, coord, query).long()


def gather_rows(feature: Tensor, index: Tensor) -> Tensor:
    """Return rows (b, g, k, c) of ``feature`` (b, n, c) by ``index`` (b, g, k), with gradient."""
    channels_first = feature.transpose(1, 2).contiguous()
    return _package().grouping_operation(channels_first, index.int().contiguous()).permute(0, 2, 3, 1)
