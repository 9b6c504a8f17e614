"""What all pre-training methods on scenes are told: encoder, data, length and optimiser of the run."""

from typing import Literal

from pydantic import Field

from pointloom.stages.encoder_names import SceneEncoderName
from pointloom.stages.params import EncoderArgs, OptimParams, SceneSamplingParams, StageParams


class SceneLearningParams(StageParams):
    """Parameters that stage ``pretrain`` itself reads; every method adds its own."""

    method: str
    encoder: SceneEncoderName
    encoder_args: EncoderArgs = Field(description="arguments of the builder")
    splits: list[Literal["train", "pretrain"]] = Field(
        min_length=1, description="train: the labelled training scenes (labels unused); pretrain: unlabelled scans"
    )
    epochs: int = Field(ge=1)
    repeats: int = Field(ge=1, description="times every scene is drawn per epoch, a new crop and view each time")
    batch_size: int = Field(ge=1, description="scenes per step")
    seed: int = Field(ge=0)
    sampling: SceneSamplingParams
    optim: OptimParams
