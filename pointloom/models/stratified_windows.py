"""Which points look at which in Stratified Transformer: all that are near, and a few that are farther away."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pointloom.ops.segments import to_corner
from pointloom.ops.voxels import voxelize


@dataclass(frozen=True)
class WindowPairs:
    """Pairs of points of the same scene.

    Attributes:
        query: Row of the point that looks.
        key: Row of the point that it looks at; every point looks at itself.
        place: Where the point that looks is as seen from the other one, along each axis in steps, 0 to ``num_places``
            - 1, the middle being the same place.
        num_places: Number of steps.
    """

    query: Int[Tensor, " m"]
    key: Int[Tensor, " m"]
    place: Int[Tensor, "m 3"]
    num_places: int


@torch.no_grad()
def window_pairs(
    coord: Float[Tensor, "p 3"],
    offset: Int[Tensor, " s"],
    far: Bool[Tensor, " p"],
    *,
    size: float,
    step: float,
    shifted: bool,
) -> WindowPairs:
    """Pair every point with all points of its window, and with few of the window of twice the size around that.

    Windows begin at the lowest corner of each scene.

    Args:
        coord: Points of the scenes, metres.
        offset: Where each scene ends.
        far: The few points that are also seen from afar.
        size: Edge of a window in metres.
        step: Length of a step of ``place`` in metres.
        shifted: Move both kinds of windows by half their size.
    """
    coord = to_corner(coord.float(), offset)
    window, wide = (voxelize(coord + (edge / 2 if shifted else 0.0), offset, edge)[2] for edge in (size, 2 * size))
    everyone, few = torch.arange(len(coord), device=coord.device), torch.nonzero(far).squeeze(1)
    near_query, near_key = _members(window, window, everyone)
    far_query, far_key = _members(wide, wide[few], few)
    beyond = window[far_query] != window[far_key]
    query, key = torch.cat([near_query, far_query[beyond]]), torch.cat([near_key, far_key[beyond]])
    half = round(2 * size / step)
    relative = coord[query] - coord[key] + 2 * size
    place = torch.floor(relative / step + 1e-4).long().clamp_(0, 2 * half - 1)  # 1e-4: what is on a border stays above
    return WindowPairs(query, key, place, 2 * half)


def _members(
    window: Int[Tensor, " p"], key_window: Int[Tensor, " q"], key: Int[Tensor, " q"]
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Pair every point with all keys in its window."""
    order = key_window.argsort(stable=True)
    count = key_window.bincount(minlength=int(window.max()) + 1)
    begin = count.cumsum(0) - count
    number = count[window]
    query = torch.arange(len(window), device=window.device).repeat_interleave(number)
    rank = torch.arange(len(query), device=window.device) - (number.cumsum(0) - number)[query]
    return query, key[order[begin[window[query]] + rank]]
