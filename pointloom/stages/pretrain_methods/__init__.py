"""Parameters and builders of the pre-training methods, one file per method; stage ``pretrain`` knows none of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pointloom.stages.pretrain_methods.base import LearningParams
from pointloom.stages.pretrain_methods.m2ae import M2AEParams, build_m2ae
from pointloom.stages.pretrain_methods.mae import MAEParams, build_mae
from pointloom.stages.pretrain_methods.pqae import PQAEParams, build_pqae
from pointloom.stages.pretrain_methods.untrained import UntrainedParams, write_untrained

if TYPE_CHECKING:
    from pointloom.structures import PretrainingMethod

PretrainParams = Annotated[UntrainedParams | MAEParams | M2AEParams | PQAEParams, Field(discriminator="method")]
"""What an entry of ``params.yaml:pretrain`` may be; ``method`` says which."""

BUILDERS: "dict[str, Callable[[Any], PretrainingMethod]]" = {"mae": build_mae, "m2ae": build_m2ae, "pqae": build_pqae}
"""Value of ``method`` -> function from its parameters to the method with fresh weights."""

__all__ = [
    "BUILDERS",
    "LearningParams",
    "M2AEParams",
    "MAEParams",
    "PQAEParams",
    "PretrainParams",
    "UntrainedParams",
    "write_untrained",
]
