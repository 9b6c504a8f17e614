"""Boxes that stand upright: corners, overlap, non-maximum suppression, points inside.

A box is a row of seven numbers: centre (x, y, z), full lengths along its own axes, heading in radians,
counter-clockwise about +Z seen from above.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_MAX_PAIRS = 2**22  # pairs of a point and a box that are looked at together
_TINY = 1e-12
_SIGNS = ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0))  # counter-clockwise


def box_corners(boxes: Float[Tensor, "*batch n 7"]) -> Float[Tensor, "*batch n 8 3"]:
    """Return the corners: four of the lower face counter-clockwise, then those above them."""
    return box_places(boxes, boxes.new_tensor([(x, y, z) for z in (-1.0, 1.0) for x, y in _SIGNS]))


def axis_aligned(boxes: Float[Tensor, "*batch n 7"]) -> Float[Tensor, "*batch n 7"]:
    """Return the smallest boxes with heading 0 around boxes."""
    cos, sin = boxes[..., 6].cos().abs(), boxes[..., 6].sin().abs()
    length, width = boxes[..., 3], boxes[..., 4]
    size = torch.stack([length * cos + width * sin, length * sin + width * cos, boxes[..., 5]], dim=-1)
    return torch.cat([boxes[..., :3], size, torch.zeros_like(boxes[..., 6:])], dim=-1)


def box_iou(
    first: Float[Tensor, "*batch n 7"], second: Float[Tensor, "*batch m 7"], *, oriented: bool = True
) -> Float[Tensor, "*batch n m"]:
    """Return intersection over union of every pair; 0 where both are empty.

    Args:
        first: Boxes.
        second: Boxes.
        oriented: False compares the axis-aligned hulls instead, cheaper and with gradient; true has none.
    """
    overlap, union, _ = _overlap_union(first, second, oriented=oriented)
    return overlap / union.clamp_min(_TINY)


def generalized_box_iou(
    first: Float[Tensor, "*batch n 7"], second: Float[Tensor, "*batch m 7"], *, oriented: bool
) -> Float[Tensor, "*batch n m"]:
    """Return IoU minus the share of the enclosing box that neither of them fills, in [-1, 1] (Rezatofighi et al.).

    The enclosing box is axis-aligned also for oriented boxes, as in 3DETR's code.

    Args:
        first: Boxes.
        second: Boxes.
        oriented: As for ``box_iou``.
    """
    overlap, union, (low, high) = _overlap_union(first, second, oriented=oriented)
    enclosing = (torch.maximum(high[0], high[1]) - torch.minimum(low[0], low[1])).prod(-1).clamp_min(_TINY)
    return overlap / union.clamp_min(_TINY) - (enclosing - union) / enclosing


def box_nms(
    boxes: Float[Tensor, "*batch n 7"],
    score: Float[Tensor, "*batch n"],
    label: Int[Tensor, "*batch n"],
    candidate: Bool[Tensor, "*batch n"],
    *,
    threshold: float,
) -> Bool[Tensor, "*batch n"]:
    """Keep a box unless one of its class with a higher score is kept that it overlaps by more than ``threshold``.

    Overlap is the IoU of the axis-aligned hulls, as VoteNet and 3DETR have it. The greedy choice is the only solution
    of "kept = candidate and suppressed by nothing kept"; it is reached after as many rounds as the longest chain of
    boxes that suppress each other.

    Args:
        boxes: Boxes.
        score: The higher the better; of equal ones the first wins.
        label: Class of every box.
        candidate: False for boxes that are not looked at.
        threshold: IoU.

    Returns:
        Which boxes are kept.
    """
    order = score.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    better = rank.unsqueeze(-1) < rank.unsqueeze(-2)
    same = label.unsqueeze(-1) == label.unsqueeze(-2)
    suppresses = better & same & (box_iou(boxes, boxes, oriented=False) > threshold)
    keep, before = candidate, torch.zeros_like(candidate)
    while not torch.equal(keep, before):
        keep, before = candidate & ~(suppresses & keep.unsqueeze(-1)).any(-2), keep
    return keep


def points_in_boxes(
    coord: Float[Tensor, "*batch p 3"], boxes: Float[Tensor, "*batch n 7"]
) -> Bool[Tensor, "*batch p n"]:
    """Tell which points lie inside or on the faces of which boxes."""
    offset = coord.unsqueeze(-2) - boxes[..., :3].unsqueeze(-3)
    inside = _turned_back(offset[..., :2], boxes[..., 6].unsqueeze(-2)).abs() <= boxes[..., 3:5].unsqueeze(-3) / 2
    return inside.all(-1) & (offset[..., 2].abs() <= boxes[..., 5].unsqueeze(-2) / 2)


def along_box(coord: Float[Tensor, "*batch n 3"], boxes: Float[Tensor, "*batch n 7"]) -> Float[Tensor, "*batch n 3"]:
    """Return points relative to the centre of their box, one box per point, along the box's own axes."""
    offset = coord - boxes[..., :3]
    return torch.cat([_turned_back(offset[..., :2], boxes[..., 6]), offset[..., 2:]], dim=-1)


def box_places(boxes: Float[Tensor, "*batch n 7"], where: Float[Tensor, "k 3"]) -> Float[Tensor, "*batch n k 3"]:
    """Return points of boxes, given along the boxes' own axes: 0 is the centre, 1 and -1 are the faces."""
    local = boxes[..., None, 3:6] / 2 * where
    cos, sin = boxes[..., 6, None].cos(), boxes[..., 6, None].sin()
    x, y, z = local.unbind(-1)
    return boxes[..., None, :3] + torch.stack([x * cos - y * sin, x * sin + y * cos, z], dim=-1)


def count_points_in_boxes(
    coord: Float[Tensor, "*batch p 3"], boxes: Float[Tensor, "*batch n 7"]
) -> Int[Tensor, "*batch n"]:
    """Count the points in every box; memory does not grow with the number of pairs."""
    step = max(1, _MAX_PAIRS // (coord.numel() // 3))
    return torch.cat([points_in_boxes(coord, part).sum(-2) for part in boxes.split(step, dim=-2)], dim=-1)


def _footprints(boxes: Float[Tensor, "*batch n 7"]) -> Float[Tensor, "*batch n 4 2"]:
    """Return the corners seen from above, counter-clockwise."""
    return box_places(boxes, boxes.new_tensor([(x, y, 0.0) for x, y in _SIGNS]))[..., :2]


def _turned_back(offset: Float[Tensor, "*rows 2"], heading: Float[Tensor, "*any"]) -> Float[Tensor, "*rows 2"]:
    """Return offsets from a box's centre along the box's own axes."""
    cos, sin = heading.cos(), heading.sin()
    x, y = offset.unbind(-1)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1)


Limits = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def _overlap_union(
    first: Float[Tensor, "*batch n 7"], second: Float[Tensor, "*batch m 7"], *, oriented: bool
) -> tuple[Float[Tensor, "*batch n m"], Float[Tensor, "*batch n m"], Limits]:
    """Return volumes of intersection and union, and lowest and highest corners of both hulls, ready to broadcast."""
    hulls = axis_aligned(first).unsqueeze(-2), axis_aligned(second).unsqueeze(-3)
    low = hulls[0][..., :3] - hulls[0][..., 3:6] / 2, hulls[1][..., :3] - hulls[1][..., 3:6] / 2
    high = hulls[0][..., :3] + hulls[0][..., 3:6] / 2, hulls[1][..., :3] + hulls[1][..., 3:6] / 2
    shared = (torch.minimum(high[0], high[1]) - torch.maximum(low[0], low[1])).clamp_min(0)
    area, sizes = shared[..., 0] * shared[..., 1], (hulls[0][..., 3:6], hulls[1][..., 3:6])
    if oriented:
        area = torch.minimum(area, _shared_area(first.detach(), second.detach()))  # exactly 0 where the hulls part
        sizes = first[..., 3:6].unsqueeze(-2), second[..., 3:6].unsqueeze(-3)
    overlap = area * shared[..., 2]
    union = sizes[0].prod(-1) + sizes[1].prod(-1) - overlap
    return overlap, union, (low, high)


def _shared_area(
    first: Float[Tensor, "*batch n 7"], second: Float[Tensor, "*batch m 7"]
) -> Float[Tensor, "*batch n m"]:
    """Return the area that the footprints of every pair share.

    By Green's theorem the area of a polygon inside the rectangle |x| <= a, |y| <= b is the integral of
    -clamp(y, -b, b) dx along those parts of its border that have |x| <= a. Every edge is cut where it meets the four
    lines of the rectangle; between the cuts the integrand is linear. Nothing is sorted, and no case is degenerate:
    edges on top of each other, boxes that touch, boxes without size.
    """
    corners = _footprints(first).unsqueeze(-3) - second[..., :2].unsqueeze(-3).unsqueeze(-2)
    start = _turned_back(corners, second[..., 6].unsqueeze(-2).unsqueeze(-1))  # (..., n, m, 4, 2)
    edge = start.roll(-1, dims=-2) - start
    half = second[..., 3:5].unsqueeze(-3).unsqueeze(-2) / 2  # (..., 1, m, 1, 2)
    slope = torch.where(edge == 0, torch.ones_like(edge), edge)
    cuts = torch.stack([(-half - start) / slope, (half - start) / slope]).sort(dim=0).values
    enter, leave = cuts[..., 0].clamp(0, 1)
    low, high = (torch.minimum(torch.maximum(cut, enter), leave) for cut in cuts[..., 1])
    position = torch.stack([enter, low, high, leave])
    y = start[..., 1] + position * edge[..., 1]
    y = torch.minimum(torch.maximum(y, -half[..., 1]), half[..., 1])
    integral = ((y[1:] + y[:-1]) / 2 * position.diff(dim=0)).sum(0) * edge[..., 0]
    return (-integral.sum(-1)).clamp_min(0)
