"""Encoders by name."""

from collections.abc import Callable
from typing import Any

from pointloom.errors import ParamsError
from pointloom.models.point_m2ae import PointM2AEEncoder, point_m2ae_base, point_m2ae_tiny
from pointloom.models.point_mae import PointMAEEncoder, point_mae_small, point_mae_tiny
from pointloom.models.pointnet import PointNetEncoder, pointnet

MaskedEncoder = PointMAEEncoder | PointM2AEEncoder
"""Encoders that can leave patches out."""

ObjectEncoder = MaskedEncoder | PointNetEncoder

ENCODERS: dict[str, Callable[..., ObjectEncoder]] = {
    "point_m2ae_base": point_m2ae_base,
    "point_m2ae_tiny": point_m2ae_tiny,
    "point_mae_small": point_mae_small,
    "point_mae_tiny": point_mae_tiny,
    "pointnet": pointnet,
}


def build_encoder(name: str, **args: Any) -> ObjectEncoder:
    """Build an encoder with fresh weights.

    Raises:
        ParamsError: The name or an argument is unknown, or an argument has no such value.
    """
    if name not in ENCODERS:
        raise ParamsError(f"unknown encoder {name!r}; known: {', '.join(sorted(ENCODERS))}")
    try:
        return ENCODERS[name](**args)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"encoder {name!r} cannot be built from {args}: {error}") from error


__all__ = [
    "ENCODERS",
    "MaskedEncoder",
    "ObjectEncoder",
    "PointM2AEEncoder",
    "PointMAEEncoder",
    "PointNetEncoder",
    "build_encoder",
]
