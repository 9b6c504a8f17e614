"""``mm3dscene``: parameters of MM-3DScene, and how they become the method."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from pointloom.stages.params import StageParams
from pointloom.stages.pretrain_methods.scene_base import SceneLearningParams

if TYPE_CHECKING:
    from pointloom.methods.mm3dscene import MM3DScene


class StatisticParams(StageParams):
    """How informative points are found."""

    cues: Literal["both", "coord", "color", "embedding"] = Field(
        description="what is compared: coordinates and colours, one of them, or a random embedding of both"
    )
    num_neighbors: int = Field(ge=2, description="neighbours per point, itself included")
    difference: Literal["squared", "norm"] = Field(
        description="squared differences (official code) or lengths of differences (paper)"
    )
    normalisation: Literal["scene", "batch"] = Field(
        description="bring each cue's statistic to [0, 1] per scene or over the batch (official code)"
    )


class CompletionParams(StageParams):
    """The heads that turn places into points."""

    hidden: int = Field(ge=2, description="width of the first hidden layer, the second has half of it")
    grid: tuple[int, int] = Field(description="copies of a place along both axes of the grid")
    extent: float = Field(gt=0, description="the grid's axes go from minus this to this")
    reads_coord: bool = Field(description="the heads also see where the place is")


class MM3DSceneParams(SceneLearningParams):
    """MM-3DScene (Xu et al., 2023)."""

    method: Literal["mm3dscene"]
    mask: Literal["preserved", "abandoned", "random"] = Field(
        description="the student sees the most informative points, the least informative ones, or any"
    )
    statistic: StatisticParams
    keep_min: float = Field(gt=0, le=1, description="smallest share of points that the student sees")
    keep_max: float = Field(gt=0, le=1, description="largest share; one is drawn per scene")
    gap: float | Literal["random"] = Field(
        description="how much larger the share of the target is; random: up to the whole scene"
    )
    progressive: bool = Field(description="false: the target is the whole scene")
    completion: CompletionParams
    reconstruction_weight: float = Field(ge=0, description="0 leaves the completion heads out")
    consistency_weight: float = Field(ge=0, description="0 leaves the teacher out")
    chamfer: Literal["mean", "sum"] = Field(description="mean (official code) or sum (paper) of both directions")
    cd_reduction: Literal["mean", "sum"] = Field(description="over the scenes of a batch; sum in the official code")
    temperature: float = Field(gt=0, description="of the consistency loss; 0.07 in the official code, 1 in the paper")
    max_samples: int = Field(ge=2, description="points per scene and level in the consistency loss")
    momentum: float = Field(ge=0, le=1, description="share of the teacher's weights that stays at every step")

    @model_validator(mode="after")
    def _ordered(self) -> "MM3DSceneParams":
        if self.keep_min > self.keep_max:
            raise ValueError(f"keep_min {self.keep_min} must not exceed keep_max {self.keep_max}")
        return self


def build_mm3dscene(params: MM3DSceneParams, num_steps: int) -> "MM3DScene":  # noqa: ARG001 - all methods are told
    """Build encoder, heads and teacher with fresh weights.

    Args:
        params: What the method is told.
        num_steps: Length of the run; nothing here depends on it.

    Raises:
        ParamsError: The encoder is unknown.
        ValueError: A value does not fit.
    """
    from pointloom.methods.mm3dscene import HeadPlan, MaskPlan, MM3DScene
    from pointloom.models import build_scene_encoder

    return MM3DScene(
        build_scene_encoder(params.encoder, **params.encoder_args),
        plan=MaskPlan(
            mask=params.mask,
            cues=params.statistic.cues,
            num_neighbors=params.statistic.num_neighbors,
            difference=params.statistic.difference,
            normalisation=params.statistic.normalisation,
            keep=(params.keep_min, params.keep_max),
            gap=params.gap,
            progressive=params.progressive,
        ),
        head=HeadPlan(**params.completion.model_dump()),
        reconstruction_weight=params.reconstruction_weight,
        consistency_weight=params.consistency_weight,
        chamfer=params.chamfer,
        cd_reduction=params.cd_reduction,
        temperature=params.temperature,
        max_samples=params.max_samples,
        momentum=params.momentum,
    )
