"""Parameters and runners of the downstream tasks, one file per task; stage ``finetune`` knows none of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pointloom.stages.finetune_tasks.base import Places
from pointloom.stages.finetune_tasks.classification import ClassificationParams, run_classification
from pointloom.stages.finetune_tasks.detection import DetectionParams, run_detection
from pointloom.stages.finetune_tasks.few_shot import FewShotParams, run_few_shot
from pointloom.stages.finetune_tasks.part_segmentation import PartSegmentationParams, run_part_segmentation
from pointloom.stages.finetune_tasks.scene_segmentation import SceneSegmentationParams, run_scene_segmentation
from pointloom.stages.finetune_tasks.semantic_segmentation import SemanticSegmentationParams, run_semantic_segmentation

if TYPE_CHECKING:
    from pointloom.stages.runs import StageRun

FinetuneParams = Annotated[
    ClassificationParams
    | DetectionParams
    | FewShotParams
    | PartSegmentationParams
    | SceneSegmentationParams
    | SemanticSegmentationParams,
    Field(discriminator="task"),
]
"""What an entry of ``params.yaml:finetune`` may be; ``task`` says which, classification where it is left out."""

RUNNERS: "dict[str, Callable[[Any, Places, StageRun], None]]" = {
    "classification": run_classification,
    "detection": run_detection,
    "few_shot": run_few_shot,
    "part_segmentation": run_part_segmentation,
    "scene_segmentation": run_scene_segmentation,
    "semantic_segmentation": run_semantic_segmentation,
}
"""Value of ``task`` -> what trains and tests."""

__all__ = [
    "RUNNERS",
    "ClassificationParams",
    "DetectionParams",
    "FewShotParams",
    "FinetuneParams",
    "PartSegmentationParams",
    "Places",
    "SceneSegmentationParams",
    "SemanticSegmentationParams",
]
