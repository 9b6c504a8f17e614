"""What happens to clouds between the store and the network: normalisation and augmentation, batched and seeded."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit_sphere(coord: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Move the mean to the origin and the farthest point to distance 1 (after sub-sampling, as Point-MAE does)."""
    centered = coord - coord.mean(1, keepdim=True)
    radius = centered.square().sum(-1).amax(1).sqrt().clamp_min(1e-9)
    return centered / radius.view(-1, 1, 1)


def scale_and_shift(
    coord: Float[Tensor, "b n 3"], *, scale: tuple[float, float], shift: float, generator: torch.Generator
) -> Float[Tensor, "b n 3"]:
    """Scale every axis by its own factor from ``scale``, then move by up to ``shift`` along every axis."""
    B = len(coord)
    low, high = scale
    factor = low + (high - low) * torch.rand(B, 1, 3, generator=generator)
    offset = shift * (2 * torch.rand(B, 1, 3, generator=generator) - 1)
    return coord * factor + offset


def rotate_about_up(
    coord: Float[Tensor, "b n 3"], *, max_degrees: float, generator: torch.Generator
) -> Float[Tensor, "b n 3"]:
    """Turn every cloud about +Z by an angle from -``max_degrees`` to ``max_degrees``."""
    angle = (2 * torch.rand(len(coord), generator=generator) - 1) * (max_degrees * torch.pi / 180)
    cos, sin = angle.cos().view(-1, 1), angle.sin().view(-1, 1)
    x, y, z = coord.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
