"""``msm``: parameters of Masked Scene Modeling, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.pretrain_methods.scene_base import SceneLearningParams

if TYPE_CHECKING:
    from pointloom.methods.msm import MSM


class MSMParams(SceneLearningParams):
    """Masked Scene Modeling (Hermosilla, Stippel and Sick, 2025)."""

    method: Literal["msm"]
    mask: Literal["bottom_up", "top_down", "none"] = Field(
        description="hidden voxels join the decoder as tokens; top_down: already the encoder; none: nothing is hidden"
    )
    mask_ratio: float = Field(gt=0, lt=1, description="share of hidden voxels at the coarsest resolution")
    mask_shared: bool = Field(description="hide the same places in both views; false: independent holes")
    crop_points: int = Field(ge=1, description="voxels of the student's crop, those nearest to a random one")
    loss_levels: list[int] = Field(min_length=1, description="resolutions whose features are guessed, 1 = finest")
    target_norm: Literal["none", "layernorm"] = Field(description="how the teacher's features are normalised")
    momentum: float = Field(ge=0, le=1, description="first momentum of the teacher; it rises to 1 along a cosine")


def build_msm(params: MSMParams, num_steps: int) -> "MSM":
    """Build student, teacher and predictors with fresh weights.

    Args:
        params: Its parameters.
        num_steps: Length of the training.

    Raises:
        ParamsError: The encoder is of another kind.
        ValueError: A value does not fit the encoder.
    """
    from pointloom.errors import ParamsError
    from pointloom.methods.msm import MSM
    from pointloom.models import build_scene_encoder
    from pointloom.models.sparse_unet import HUNet

    encoder = build_scene_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, HUNet):
        raise ParamsError(f"method msm pre-trains hunet encoders, got {params.encoder!r}")
    return MSM(
        encoder,
        mask=params.mask,
        mask_ratio=params.mask_ratio,
        mask_shared=params.mask_shared,
        crop_points=params.crop_points,
        loss_levels=params.loss_levels,
        target_norm=params.target_norm,
        momentum=params.momentum,
        total_steps=num_steps,
    )
