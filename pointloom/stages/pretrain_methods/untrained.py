"""``untrained``: fresh weights, nothing learned."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pointloom.stages.encoder_names import EncoderName
from pointloom.stages.params import EncoderArgs, StageParams


class UntrainedParams(StageParams):
    """Write fresh weights: the starting point of rows that are trained from scratch, one draw per seed later on."""

    method: Literal["untrained"]
    encoder: EncoderName
    encoder_args: EncoderArgs = Field(description="arguments of the builder")
    num_points: int = Field(ge=16, description="points per cloud or scene the encoder is meant for")
    seed: int = Field(ge=0)


def write_untrained(params: UntrainedParams, folder: Path) -> None:
    """Write an encoder with fresh weights."""
    import torch

    from pointloom.models import SCENE_ENCODERS, build_encoder, build_scene_encoder
    from pointloom.structures import as_module
    from pointloom.train.checkpoint import save_encoder

    torch.manual_seed(params.seed)
    build = build_scene_encoder if params.encoder in SCENE_ENCODERS else build_encoder
    save_encoder(
        folder,
        as_module(build(params.encoder, **params.encoder_args)),
        builder=params.encoder,
        builder_args=params.encoder_args,
        method="untrained",
        labels="none",
        num_points=params.num_points,
        data_digest=None,
        params=params.model_dump(mode="json"),
    )
