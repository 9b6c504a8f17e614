"""What all pre-training methods are told: encoder, data, length and optimiser of the run."""

from typing import Literal

from pydantic import Field

from pointloom.stages.encoder_names import ObjectEncoderName
from pointloom.stages.params import EncoderArgs, GrowingParams, OptimParams, SamplingParams


class LearningParams(GrowingParams):
    """Parameters that stage ``pretrain`` itself reads; every method adds its own."""

    method: str
    encoder: ObjectEncoderName
    encoder_args: EncoderArgs = Field(description="arguments of the builder")
    splits: list[Literal["train", "pretrain"]] = Field(
        min_length=1, description="train: the labelled training objects (labels unused); pretrain: unlabelled extras"
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    seed: int = Field(ge=0)
    sampling: SamplingParams
    optim: OptimParams
    svm_every: int = Field(
        default=0,
        ge=0,
        description="after every so many epochs, the papers' linear SVM (C 0.01) on frozen features of the labelled "
        "objects is logged, as Point-M2AE's code does; nothing is chosen by it; 0 = never",
    )
