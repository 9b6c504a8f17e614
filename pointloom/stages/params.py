"""Base of all stage parameters and the blocks that several stages share."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

EncoderArgs = dict[str, bool | int | float | Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")]]
"""Arguments of an encoder's builder: numbers, switches and names of choices."""


class StageParams(BaseModel):
    """Parameters of one stage: every key must be known, every value in range, nothing has a hidden default.

    Numbers are read laxly (``300.0`` is the integer 300) because KFP turns every integer of a dict into a float.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, protected_namespaces=())


class GrowingParams(StageParams):
    """Parameters that others joined later: those have a default, and are not written down where they have it.

    So sections from before they existed keep their digest, and what was made from them stays up to date.
    """

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {key: value for key, value in values.items() if getattr(self, key) != fields[key].default}


class OptimParams(GrowingParams):
    """AdamW with linear warm-up and a cosine down to ``min_lr``."""

    lr: float = Field(gt=0, description="peak learning rate")
    min_lr: float = Field(ge=0, description="learning rate at the start of the warm-up and at the end")
    weight_decay: float = Field(ge=0, description="decoupled weight decay of weight matrices")
    warmup_epochs: float = Field(ge=0, description="length of the linear warm-up")
    clip_norm: float = Field(ge=0, description="limit of the gradient's L2 norm, 0 = off")
    schedule: Literal["step", "epoch", "votenet", "mm3dscene_detection", "point_transformer"] = Field(
        description="step: rate set every step; epoch: the official code's schedule, one epoch late; the others go "
        "down in steps after parts of the run, as the code of that name does"
    )
    precision: Literal["bf16", "fp32"] = Field(description="bf16: matrix products in bfloat16")
    schedule_epochs: int | None = Field(
        default=None,
        ge=1,
        description="length of the schedule; null: of the run. Point-M2AE's code runs 300 of 400 epochs",
    )


class SamplingParams(StageParams):
    """Which points the network sees and how clouds are changed while training."""

    num_points: int = Field(ge=16, description="points per cloud")
    pool: int = Field(ge=16, description="stored points (farthest-point prefix) the random subset is drawn from")
    scale_min: float = Field(gt=0, description="smallest per-axis factor")
    scale_max: float = Field(gt=0, description="largest per-axis factor")
    shift: float = Field(ge=0, description="largest per-axis offset, in radii")
    rotate_degrees: float = Field(ge=0, le=180, description="largest turn about the up axis, 0 = off")

    @model_validator(mode="after")
    def _ordered(self) -> "SamplingParams":
        if self.num_points > self.pool:
            raise ValueError(f"num_points {self.num_points} must not exceed pool {self.pool}")
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must not exceed scale_max {self.scale_max}")
        return self


class SceneSamplingParams(StageParams):
    """Which points of a scene the network sees and how scenes are changed while training."""

    voxel_size: float = Field(gt=0, description="metres; one point per voxel, a random one while training")
    max_points: int | None = Field(
        ge=16, description="while training, points per scene, those nearest to a random one; null keeps all"
    )
    block: Literal["none", "keep", "remove"] = Field(
        description="while training, keep or remove what is in a random upright block"
    )
    augmentation: Literal["none", "point_transformer", "indoor"] = Field(
        description="how scenes are changed while training: as the two methods' official code does, or not at all"
    )


class HeadParams(StageParams):
    """A head trained on frozen features."""

    epochs: int = Field(ge=1)
    lr: float = Field(gt=0, description="peak learning rate of AdamW")
