"""Small rooms with boxes, as scenes, as a source of scenes and as a batch."""

from pathlib import Path

import numpy as np

from pointloom.data.detection_batches import DetectionLoader, DetectionSampling
from pointloom.data.scenes import Scene, SceneBoxes
from pointloom.structures import DetectionBatch

PLACES = np.array([(-1.2, -1.0), (1.1, 1.2), (1.2, -0.9), (-1.0, 1.1)])
SIZES = np.array([(0.6, 0.8, 0.5), (1.2, 0.5, 1.0)])


def boxed_scene(seed: int, *, num_boxes: int = 3, turned: bool = False, points_per_box: int = 150) -> Scene:
    """A floor of 4 x 4 m and things of two classes on it, seen as points on their faces."""
    rng = np.random.default_rng(seed)
    label = np.arange(num_boxes) % 2
    size = SIZES[label] * rng.uniform(0.9, 1.1, (num_boxes, 1))
    heading = rng.uniform(-np.pi, np.pi, num_boxes) if turned else np.zeros(num_boxes)
    center = np.c_[PLACES[:num_boxes] + rng.uniform(-0.2, 0.2, (num_boxes, 2)), size[:, 2] / 2 + 0.01]
    floor = np.c_[rng.uniform(-2, 2, (500, 2)), np.zeros(500)]
    parts, instance, segment = [floor], [np.full(500, -1)], [np.zeros(500)]
    for i in range(num_boxes):
        place = rng.uniform(-0.5, 0.5, (points_per_box, 3))
        axis = rng.integers(3, size=points_per_box)
        place[np.arange(points_per_box), axis] = np.sign(place[np.arange(points_per_box), axis]) / 2
        x, y, z = (place * size[i]).T
        cos, sin = np.cos(heading[i]), np.sin(heading[i])
        parts.append(np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=1) + center[i])
        instance.append(np.full(points_per_box, 10 + i))
        segment.append(np.full(points_per_box, 1 + label[i]))
    return Scene(
        name=f"room_{seed}",
        coord=np.concatenate(parts).astype(np.float32),
        color=None,
        normal=None,
        segment=np.concatenate(segment).astype(np.int16),
        instance=np.concatenate(instance).astype(np.int32),
        boxes=SceneBoxes(
            center=center.astype(np.float32),
            size=size.astype(np.float32),
            heading=heading.astype(np.float32),
            label=label.astype(np.int64),
            instance=10 + np.arange(num_boxes),
        ),
        split="test" if seed % 2 else "train",
        aligned=True,
    )


class Rooms:
    """A few rooms in memory."""

    path = Path("rooms")

    def __init__(self, *scenes: Scene) -> None:
        self.scenes = scenes

    def scene(self, row: int) -> Scene:
        return self.scenes[row]


def boxed_batch(*scenes: Scene, num_points: int = 512, oriented: bool = False) -> DetectionBatch:
    """The scenes as one batch, without augmentation."""
    sampling = DetectionSampling(num_points=num_points, oriented=oriented)
    rows = np.arange(len(scenes))
    return next(DetectionLoader(Rooms(*scenes), rows, sampling=sampling, batch_size=len(scenes), seed=0).draw(0))
