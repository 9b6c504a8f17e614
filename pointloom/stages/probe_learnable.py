"""What the heads of a probe learn from: some labelled points, super-points and boxes of every training scene."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointloom.stages.probe_grounding import BoxesOfScene, boxes_of_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.scenes import Scene
    from pointloom.stages.probe_scenes import SceneProbeParams
    from pointloom.tasks.instance_segmentation import PointTargets
    from pointloom.tasks.scene_probing import PointFeatures


@dataclass(frozen=True)
class SceneFeatures:
    """Frozen features of all points of a scene, and what is known of them."""

    scene: "Scene"
    points: "PointFeatures"


@dataclass(frozen=True)
class Learnable:
    """What the heads learn from one scene.

    Attributes:
        superpoints: Mean features and classes of the labelled super-points.
        targets: Some of the labelled points.
        boxes: Boxes and sentences; None where nothing is asked.
    """

    superpoints: "tuple[NDArray[np.float32], NDArray[np.int64]]"
    targets: "PointTargets"
    boxes: BoxesOfScene | None


def learnable(
    features: SceneFeatures, params: "SceneProbeParams", seeds: list[int], classes: tuple[str, ...]
) -> list[Learnable]:
    """Keep what the heads of every seed learn from: super-points, boxes, some of the labelled points."""
    from pointloom.datasets.limited_labels import draw_point_labels
    from pointloom.tasks.scene_probing import PointFeatures, labelled_superpoints, superpoint_means

    scene, points = features.scene, features.points
    stuff = [classes.index(name) for name in params.instances.ignored] if params.instances else []
    boxes = boxes_of_scene(scene, points.feature) if params.grounding else None
    means, few = superpoint_means(points), params.labelled_points
    found: list[Learnable] = []
    for seed in seeds:
        known = scene if few is None else draw_point_labels(scene, few, seed=seed)
        labelled = PointFeatures(points.feature, known.segment, points.superpoint)
        if few is not None or not found:  # else the seeds see the same labels
            pooled = labelled_superpoints(labelled, means, num_classes=len(classes))
        found.append(Learnable(pooled, _targets(known, points.feature, stuff, params.points_per_scene, seed), boxes))
    return found


def _targets(scene: "Scene", feature: "NDArray[np.float32]", stuff: list[int], most: int, seed: int) -> "PointTargets":
    """Draw some of the labelled points with their features, classes and ways to the middle of their instances."""
    import numpy as np
    import torch

    from pointloom.tasks.instance_segmentation import PointTargets, instance_targets

    known = np.flatnonzero(scene.segment >= 0)
    shift, has_shift = instance_targets(scene.coord, np.where(np.isin(scene.segment, stuff), -1, scene.instance))
    chosen = np.sort(np.random.default_rng([seed, len(known)]).permutation(known)[:most])
    return PointTargets(
        feature=torch.from_numpy(feature[chosen]),
        segment=torch.from_numpy(scene.segment[chosen].astype(np.int64)),
        shift=torch.from_numpy(shift[chosen]),
        has_shift=torch.from_numpy(has_shift[chosen]),
    )
