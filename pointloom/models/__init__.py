"""Encoders by name: of objects in ``ENCODERS``, of scenes in ``SCENE_ENCODERS``."""

from collections.abc import Callable
from typing import Any, TypeVar

from pointloom.errors import ParamsError
from pointloom.models.detr_encoder import detr, detr_masked
from pointloom.models.point_m2ae import PointM2AEEncoder, point_m2ae_base, point_m2ae_tiny
from pointloom.models.point_mae import PointMAEEncoder, point_mae_small, point_mae_tiny
from pointloom.models.point_transformer import point_transformer, point_transformer_tiny
from pointloom.models.pointnet import PointNetEncoder, pointnet
from pointloom.models.pointnet2 import pointnet2_tiny, pointnet2_votenet
from pointloom.models.sparse_unet import hunet_ablation, hunet_large, hunet_tiny
from pointloom.models.sr_unet import sr_unet, sr_unet_tiny
from pointloom.models.stratified_transformer import (
    stratified_transformer,
    stratified_transformer_scannet,
    stratified_transformer_tiny,
)
from pointloom.structures import SceneEncoder

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

SCENE_ENCODERS: dict[str, Callable[..., SceneEncoder]] = {
    "detr": detr,
    "detr_masked": detr_masked,
    "hunet_ablation": hunet_ablation,
    "hunet_large": hunet_large,
    "hunet_tiny": hunet_tiny,
    "point_transformer": point_transformer,
    "point_transformer_tiny": point_transformer_tiny,
    "pointnet2_tiny": pointnet2_tiny,
    "pointnet2_votenet": pointnet2_votenet,
    "sr_unet": sr_unet,
    "sr_unet_tiny": sr_unet_tiny,
    "stratified_transformer": stratified_transformer,
    "stratified_transformer_scannet": stratified_transformer_scannet,
    "stratified_transformer_tiny": stratified_transformer_tiny,
}

Built = TypeVar("Built")


def build_encoder(name: str, **args: Any) -> ObjectEncoder:
    """Build an encoder of objects with fresh weights.

    Raises:
        ParamsError: The name or an argument is unknown, or an argument has no such value.
    """
    return _build(ENCODERS, name, args, kind="encoder")


def build_scene_encoder(name: str, **args: Any) -> SceneEncoder:
    """Build an encoder of scenes with fresh weights.

    Raises:
        ParamsError: As for ``build_encoder``.
    """
    return _build(SCENE_ENCODERS, name, args, kind="scene encoder")


def _build(builders: dict[str, Callable[..., Built]], name: str, args: dict[str, Any], *, kind: str) -> Built:
    if name not in builders:
        raise ParamsError(f"unknown {kind} {name!r}; known: {', '.join(sorted(builders))}")
    try:
        return builders[name](**args)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"{kind} {name!r} cannot be built from {args}: {error}") from error


__all__ = [
    "ENCODERS",
    "SCENE_ENCODERS",
    "MaskedEncoder",
    "ObjectEncoder",
    "PointM2AEEncoder",
    "PointMAEEncoder",
    "PointNetEncoder",
    "build_encoder",
    "build_scene_encoder",
]
