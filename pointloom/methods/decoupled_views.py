"""Two views of a cloud that share no frame: crops, stretched to their own boxes and turned (Point-PQAE)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pointloom.ops import gather_points, knn, own_rows

SMALLEST_EXTENT = 1e-6
FRAMES = ("box", "middle", "cloud")


@dataclass(frozen=True)
class View:
    """A part of every cloud in a frame of its own.

    Attributes:
        coord: Points of the view, in its frame; the point that the crop grew from is first.
        index: Which points of the cloud they are.
        middle: Middle of the crop's bounding box, in the cloud's frame.
        origin: Where the view's origin lies in the cloud's frame.
        scale: Lengths of the view's axes in the cloud's frame, before the turn.
        angle: Turn about the up axis, in radians.
    """

    coord: Float[Tensor, "b m 3"]
    index: Int[Tensor, "b m"]
    middle: Float[Tensor, "b 3"]
    origin: Float[Tensor, "b 3"]
    scale: Float[Tensor, "b 3"]
    angle: Float[Tensor, " b"]

    def to_cloud(self, points: Float[Tensor, "b p 3"]) -> Float[Tensor, "b p 3"]:
        """Move points from the view's frame into the cloud's."""
        return turn(points, -self.angle) * self.scale.unsqueeze(1) + self.origin.unsqueeze(1)


def draw_view(coord: Float[Tensor, "b n 3"], *, min_crop: float, frame: str, rotate: bool) -> View:
    """Crop every cloud around a random point and give the crop a frame of its own.

    Args:
        coord: Clouds.
        min_crop: Smallest share of points that a crop keeps; the share is drawn between this and 1, once for all
            clouds, so that their views have the same number of points. 1 keeps everything.
        frame: ``box`` stretches the crop's bounding box to [-1, 1] along every axis, ``middle`` moves the box's middle
            to the origin, ``cloud`` leaves the points where they are.
        rotate: Whether to turn every view about the up axis by an angle of its own, 0 to 360 degrees.

    Note:
        A box of extent zero is mapped to -1, as in the official code.
    """
    B, N, _ = coord.shape
    ratio = min_crop + (1.0 - min_crop) * float(torch.rand(()))
    seed = own_rows(lambda rows: torch.randint(N, (rows, 1), device=coord.device), B)
    index = knn(gather_points(coord, seed), coord, int(N * ratio)).squeeze(1)
    points = gather_points(coord, index)
    low, high = points.amin(1), points.amax(1)
    middle = (low + high) / 2
    if frame == "box":
        scale = (high - low + SMALLEST_EXTENT) / 2
        origin = low + scale
        points = (points - low.unsqueeze(1)) / scale.unsqueeze(1) - 1
    else:
        scale = torch.ones_like(middle)
        origin = middle if frame == "middle" else torch.zeros_like(middle)
        points = points - origin.unsqueeze(1)
    angle = torch.zeros(B, device=coord.device)
    if rotate:
        angle = 2 * torch.pi * own_rows(lambda rows: torch.rand(rows, device=coord.device), B)
    return View(turn(points, angle), index, middle=middle, origin=origin, scale=scale, angle=angle)


def turn(points: Float[Tensor, "b p 3"], angle: Float[Tensor, " b"]) -> Float[Tensor, "b p 3"]:
    """Turn every cloud about +Z by its own angle in radians."""
    cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)
    x, y, z = points.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
