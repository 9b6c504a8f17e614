"""Parameters and builders of the pre-training methods, one file per method; stage ``pretrain`` knows none of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pointloom.stages.pretrain_methods.base import LearningParams
from pointloom.stages.pretrain_methods.m2ae import M2AEParams, build_m2ae
from pointloom.stages.pretrain_methods.mae import MAEParams, build_mae
from pointloom.stages.pretrain_methods.mm3dscene import MM3DSceneParams, build_mm3dscene
from pointloom.stages.pretrain_methods.msc import MSCParams, build_msc
from pointloom.stages.pretrain_methods.msm import MSMParams, build_msm
from pointloom.stages.pretrain_methods.pqae import PQAEParams, build_pqae
from pointloom.stages.pretrain_methods.scene_base import SceneLearningParams
from pointloom.stages.pretrain_methods.scene_views import load_views
from pointloom.stages.pretrain_methods.untrained import UntrainedParams, write_untrained

if TYPE_CHECKING:
    from pointloom.structures import PretrainingMethod, SceneMethod
    from pointloom.train.loop import Loader

PretrainParams = Annotated[
    UntrainedParams | MAEParams | M2AEParams | PQAEParams | MM3DSceneParams | MSMParams | MSCParams,
    Field(discriminator="method"),
]
"""What an entry of ``params.yaml:pretrain`` may be; ``method`` says which."""

BUILDERS: "dict[str, Callable[[Any], PretrainingMethod]]" = {"mae": build_mae, "m2ae": build_m2ae, "pqae": build_pqae}
"""Value of ``method`` -> function from its parameters to the method with fresh weights."""

SCENE_BUILDERS: "dict[str, Callable[[Any, int], SceneMethod]]" = {
    "mm3dscene": build_mm3dscene,
    "msc": build_msc,
    "msm": build_msm,
}
"""Value of ``method`` -> function from its parameters and the number of steps to the method with fresh weights."""

SCENE_LOADERS: "dict[str, Callable[..., Loader]]" = {"msc": load_views, "msm": load_views}
"""Value of ``method`` -> its own loader; all other methods on scenes get plain batches."""

__all__ = [
    "BUILDERS",
    "SCENE_BUILDERS",
    "SCENE_LOADERS",
    "LearningParams",
    "M2AEParams",
    "MAEParams",
    "MM3DSceneParams",
    "MSCParams",
    "MSMParams",
    "PQAEParams",
    "PretrainParams",
    "SceneLearningParams",
    "UntrainedParams",
    "write_untrained",
]
