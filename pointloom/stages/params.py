"""Base of all stage parameters and the blocks that several stages share."""

from pydantic import BaseModel, ConfigDict, Field


class StageParams(BaseModel):
    """Parameters of one stage: every key must be known, every value in range, nothing has a hidden default.

    Numbers are read laxly (``300.0`` is the integer 300) because KFP turns every integer of a dict into a float.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class OptimParams(StageParams):
    """AdamW with linear warm-up and a cosine to ``min_lr``.

    Attributes:
        lr: Peak learning rate.
        min_lr: Learning rate at the end (and at the start of the warm-up).
        weight_decay: Decoupled weight decay of the decayed parameter group.
        warmup_epochs: Length of the linear warm-up.
        clip_norm: Gradient L2 norm limit; 0 switches clipping off.
        schedule: ``step`` sets the rate every step; ``epoch`` repeats the official per-epoch schedule with its lag.
    """

    lr: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    clip_norm: float = Field(ge=0)
    schedule: str = Field(pattern="^(step|epoch)$")
