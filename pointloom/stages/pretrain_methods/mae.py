"""``mae``: parameters of Point-MAE, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.pretrain_methods.base import LearningParams

if TYPE_CHECKING:
    from pointloom.methods.mae import MAE


class MAEParams(LearningParams):
    """Point-MAE (Pang et al., 2022)."""

    method: Literal["mae"]
    mask: Literal["random", "block"] = Field(description="how hidden patches are chosen")
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden patches")
    decoder_depth: int = Field(ge=1, description="decoder blocks")
    decoder_heads: int = Field(ge=1, description="attention heads of the decoder")
    decoder_drop_path: float = Field(ge=0, lt=1)
    loss_norm: Literal[1, 2] = Field(description="Chamfer distance of distances (1) or squared distances (2)")
    small_start: bool = Field(description="start with predictions of about a patch's size; not in the official code")
    embed_visible_only: bool = Field(
        description="skip hidden patches in the patch embedder: faster, other batch statistics than the official code"
    )


def build_mae(params: MAEParams) -> "MAE":
    """Build encoder and decoder with fresh weights.

    Raises:
        ParamsError: The encoder is of another kind, or has more patches than clouds have points.
        ValueError: A value does not fit the encoder.
    """
    from pointloom.errors import ParamsError
    from pointloom.methods.mae import MAE
    from pointloom.models import build_encoder
    from pointloom.models.point_mae import PointMAEEncoder

    encoder = build_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, PointMAEEncoder):
        raise ParamsError(f"method mae pre-trains point_mae encoders, got {params.encoder!r}")
    check_enough_points(encoder, params.sampling.num_points, where="pretrain")
    encoder.embed_visible_only = params.embed_visible_only
    return MAE(
        encoder,
        mask_ratio=params.mask_ratio,
        mask=params.mask,
        decoder_depth=params.decoder_depth,
        decoder_heads=params.decoder_heads,
        drop_path=params.decoder_drop_path,
        loss_norm=params.loss_norm,
        small_start=params.small_start,
    )
