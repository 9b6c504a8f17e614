"""``pqae``: parameters of Point-PQAE, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.pretrain_methods.base import LearningParams

if TYPE_CHECKING:
    from pointloom.methods.pqae import PQAE


class PQAEParams(LearningParams):
    """Point-PQAE (Zhang, Zhang and Yan, 2025)."""

    method: Literal["pqae"]
    min_crop: float = Field(gt=0, le=1, description="smallest share of points in a view, 1 = no cropping")
    frame: Literal["box", "middle", "cloud"] = Field(
        description="box: stretch a view to its bounding box; middle: only centre it; cloud: leave it where it is"
    )
    rotate: bool = Field(description="turn every view about the up axis by a random angle")
    position: Literal["relative", "absolute", "none"] = Field(
        description="what the query knows of a patch: where it lies relative to the other view, where it lies, nothing"
    )
    query: bool = Field(description="positions ask the other view; false: the decoder gets its tokens as they are")
    decoder_depth: int = Field(ge=1, description="decoder blocks")
    decoder_heads: int = Field(ge=1, description="attention heads of query and decoder")
    decoder_drop_path: float = Field(ge=0, lt=1)
    loss: Literal["cdl2", "cdl1", "cosine"] = Field(description="squared Chamfer distance, Chamfer distance, cosine")
    compat: Literal["clean", "official"] = Field(
        description="official: the published code's initial weights and its unused position embedding"
    )
    small_start: bool = Field(description="start with predictions of about a patch's size; not in the official code")


def build_pqae(params: PQAEParams) -> "PQAE":
    """Build encoder, query and decoder with fresh weights.

    Raises:
        ParamsError: The encoder is of another kind, or views may have fewer points than it needs.
        ValueError: A value does not fit the encoder.
    """
    from pointloom.errors import ParamsError
    from pointloom.methods.pqae import PQAE
    from pointloom.models import build_encoder
    from pointloom.models.point_mae import PointMAEEncoder

    encoder = build_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, PointMAEEncoder):
        raise ParamsError(f"method pqae pre-trains point_mae encoders, got {params.encoder!r}")
    smallest, needed = int(params.min_crop * params.sampling.num_points), max(encoder.num_groups, encoder.group_size)
    if smallest < needed:
        raise ParamsError(
            f"method pqae: a view may have only {smallest} points (min_crop {params.min_crop} of "
            f"{params.sampling.num_points}), the encoder needs {needed}; raise min_crop or num_points"
        )
    return PQAE(
        encoder,
        min_crop=params.min_crop,
        frame=params.frame,
        rotate=params.rotate,
        position=params.position,
        query=params.query,
        decoder_depth=params.decoder_depth,
        decoder_heads=params.decoder_heads,
        drop_path=params.decoder_drop_path,
        loss=params.loss,
        compat=params.compat,
        small_start=params.small_start,
    )
