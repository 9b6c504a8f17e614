"""Instances of scenes in stage ``probe``: from heads on frozen features to average precision."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from pointloom.stages.params import HeadParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scenes import Scene
    from pointloom.tasks.instance_segmentation import InstanceHeads, Scored


class InstanceParams(HeadParams):
    """Instance segmentation with heads on frozen features (PointGroup)."""

    ignored: list[str] = Field(description="classes without instances, such as wall and floor")
    radius: float = Field(gt=0, description="metres; moved points closer than this belong together")
    smallest: int = Field(ge=1, description="points of the smallest instance that is found or scored")


def find_instances(
    params: InstanceParams,
    heads: "InstanceHeads",
    scene: "Scene",
    feature: "NDArray[np.float32]",
    classes: tuple[str, ...],
) -> "Scored":
    """Group the points of a scene by the heads' answers."""
    import numpy as np
    import torch

    from pointloom.tasks.instance_segmentation import Scored, group_points_by_shift, true_instances

    with torch.inference_mode():
        logits, shift = heads.predict(torch.from_numpy(feature))
    ignored = [classes.index(name) for name in params.ignored]
    predicted = group_points_by_shift(
        scene.coord, shift.numpy(), logits.softmax(1).numpy(), ignored=ignored, radius=params.radius,
        smallest=params.smallest,
    )  # fmt: skip
    void = (scene.segment < 0) | np.isin(scene.segment, ignored)
    return Scored(predicted, true_instances(scene.segment, scene.instance), void)


def instance_record(params: InstanceParams, scored: "list[Scored]", classes: tuple[str, ...]) -> dict[str, Any]:
    """Return average precisions in percent, means over the classes that occur."""
    import numpy as np

    from pointloom.tasks.instance_segmentation import THRESHOLDS, average_precision

    places = [place for place, name in enumerate(classes) if name not in params.ignored]
    by_threshold = {
        threshold: 100 * average_precision(scored, classes=places, threshold=threshold, min_points=params.smallest)
        for threshold in (0.25, *THRESHOLDS)
    }
    present = ~np.isnan(by_threshold[0.5])

    def mean(values: "NDArray[np.float64]") -> float:
        return float(values[present].mean()) if present.any() else 0.0

    return {
        "protocol": "instances",
        "ap": float(np.mean([mean(by_threshold[threshold]) for threshold in THRESHOLDS])),
        "ap50": mean(by_threshold[0.5]),
        "ap25": mean(by_threshold[0.25]),
        "classes": {
            classes[place]: float(value)
            for place, value in zip(places, by_threshold[0.5], strict=True)
            if not np.isnan(value)
        },
    }
