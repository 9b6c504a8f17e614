"""``m2ae``: parameters of Point-M2AE, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.pretrain_methods.base import LearningParams

if TYPE_CHECKING:
    from pointloom.methods.m2ae import M2AE


FINER_GROUPS = {"point_mae_small": (512, 256), "point_mae_tiny": (128, 64)}
"""Plain encoder -> patches of the scales that are decoded below it: those of the hierarchical encoder of its size."""


class M2AEParams(LearningParams):
    """Point-M2AE (Zhang et al., 2022)."""

    method: Literal["m2ae"]
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden patches at the coarsest scale")
    multi_scale: bool = Field(description="finer masks follow from the coarsest one; false: one drawn per scale")
    decoder_stages: int = Field(ge=1, description="scales that are decoded; the last one's patches are predicted")
    decoder_depth: int = Field(ge=1, description="decoder blocks per scale")
    decoder_heads: int = Field(ge=1, description="attention heads of the decoder")
    decoder_drop_path: float = Field(ge=0, lt=1)
    skip: bool = Field(description="the decoder sees the visible tokens of finer scales")
    points_per_token: int = Field(ge=1, description="points predicted per hidden patch")
    loss: Literal["chamfer", "emd", "chamfer+emd"] = Field(
        description="Chamfer distance, earth mover's distance (points_per_token: a patch's members), or their sum"
    )
    loss_norm: Literal[1, 2] = Field(description="Chamfer distance of distances (1) or squared distances (2)")
    small_start: bool = Field(description="start with predictions of about a patch's size; not in the official code")
    embed_visible_only: bool = Field(
        description="embed and merge visible patches only: faster, other batch statistics than the official code"
    )
    compat: Literal["official", "clean"] = Field(
        description="official repeats two oddities of the published code (see docs), clean follows the paper"
    )


def build_m2ae(params: M2AEParams) -> "M2AE":
    """Build encoder and decoder with fresh weights.

    Raises:
        ParamsError: The encoder is of another kind, or there are more patches than clouds have points.
        ValueError: A value does not fit the encoder.
    """
    from pointloom.errors import ParamsError
    from pointloom.methods.m2ae import M2AE
    from pointloom.models import build_encoder
    from pointloom.models.point_m2ae import PointM2AEEncoder
    from pointloom.models.point_mae import PointMAEEncoder

    encoder = build_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, PointM2AEEncoder | PointMAEEncoder):
        raise ParamsError(f"method m2ae pre-trains point_m2ae and point_mae encoders, got {params.encoder!r}")
    finer_groups = FINER_GROUPS.get(params.encoder, ())
    check_enough_points(encoder, params.sampling.num_points, where="pretrain", num_groups=max(finer_groups, default=0))
    encoder.embed_visible_only = params.embed_visible_only
    return M2AE(
        encoder,
        mask_ratio=params.mask_ratio,
        multi_scale=params.multi_scale,
        decoder_stages=params.decoder_stages,
        decoder_depth=params.decoder_depth,
        decoder_heads=params.decoder_heads,
        drop_path=params.decoder_drop_path,
        skip=params.skip,
        points_per_token=params.points_per_token,
        loss=params.loss,
        loss_norm=params.loss_norm,
        small_start=params.small_start,
        compat=params.compat,
        finer_groups=finer_groups,
    )
