"""``msc``: parameters of Masked Scene Contrast, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pointloom.stages.pretrain_methods.scene_base import SceneLearningParams

if TYPE_CHECKING:
    from pointloom.methods.msc import MSC


class MSCParams(SceneLearningParams):
    """Masked Scene Contrast (Wu et al., 2023)."""

    method: Literal["msc"]
    view_share: float = Field(gt=0, le=1, description="share of a view that is kept, nearest to a random voxel")
    mask_ratio: float = Field(gt=0, le=0.5, description="share of hidden patches in each of the two views")
    patch_size: float = Field(gt=0, description="edge of a patch in metres")
    radius: float = Field(gt=0, description="metres between voxels of two views that count as the same place")
    max_pairs: int = Field(ge=2, description="pairs that are contrasted at most")
    temperature: float = Field(gt=0, description="of the contrast")
    normals: bool = Field(description="guess normals beside colours")


def build_msc(params: MSCParams, num_steps: int) -> "MSC":  # noqa: ARG001 - all builders of scenes are told the length
    """Build encoder and heads with fresh weights.

    Args:
        params: Its parameters.
        num_steps: Length of the training; nothing depends on it.

    Raises:
        ParamsError: The encoder is of another kind.
        ValueError: A value is out of range.
    """
    from pointloom.errors import ParamsError
    from pointloom.methods.msc import MSC
    from pointloom.models import build_scene_encoder
    from pointloom.models.sparse_unet import HUNet
    from pointloom.models.sr_unet import SRUNet

    encoder = build_scene_encoder(params.encoder, **params.encoder_args)
    if not isinstance(encoder, HUNet | SRUNet):
        raise ParamsError(f"method msc pre-trains sr_unet and hunet encoders, got {params.encoder!r}")
    return MSC(
        encoder,
        view_share=params.view_share,
        mask_ratio=params.mask_ratio,
        patch_size=params.patch_size,
        radius=params.radius,
        max_pairs=params.max_pairs,
        temperature=params.temperature,
        normals=params.normals,
    )
