"""A made-up scene with predictions, boxes, masks and reconstructions, as the stages would leave them behind."""

import numpy as np

from pointloom.report.inputs import EncoderRecord, Records, ResultRecord

CLASSES = ["wall", "floor", "chair", "table"]
BOX_CLASSES = ["chair", "table"]


def room_arrays(num: int = 400, *, scenes: int = 2) -> dict[str, np.ndarray]:
    """Return ``scenes`` rooms of ``num`` points: a floor, a wall to x = 0, a chair at (1, 1), a table at (3, 2)."""
    rng = np.random.default_rng(0)
    coord, label = [], []
    for _ in range(scenes):
        kind = rng.integers(0, 4, num)
        low = np.array([[0, 0, 0], [0, 0, 0], [0.75, 0.75, 0], [2.5, 1.5, 0]])[kind]
        size = np.array([[0, 4, 3], [4, 4, 0], [0.5, 0.5, 0.9], [1, 1, 0.7]])[kind]
        coord.append(low + rng.random((num, 3)) * size)
        label.append(kind)
    labels = np.concatenate(label)
    labels[::50] = -1
    return {
        "coord": np.concatenate(coord).astype("f4"),
        "color": rng.integers(0, 255, (num * scenes, 3)).astype("u1"),
        "offset": np.cumsum([num] * scenes),
        "name": np.array([f"room <{i}>" for i in range(scenes)]),
        "label": labels.astype("i2"),
    }


def predicted(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add predictions that take every fifth point for a table."""
    prediction = np.where(arrays["label"] < 0, 0, arrays["label"])
    prediction[::5] = 3
    return arrays | {"prediction": prediction}


def boxed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the true boxes of both scenes, and one found box in the second scene."""
    one = {"center": [[1, 1, 0.45], [3, 2, 0.35]], "size": [[0.5, 0.5, 0.9], [1, 1, 0.7]], "heading": [0, 0.5]}
    true = {f"true_{key}": np.array([*value, *value], dtype="f4") for key, value in one.items()}
    true |= {"true_label": np.array([0, 1, 0, 1]), "true_scene": np.array([0, 0, 1, 1])}
    found = {"center": [[1.1, 1, 0.45]], "size": [[0.5, 0.6, 0.9]], "heading": [0.1], "score": [0.75]}
    boxes = {f"box_{key}": np.array(value, dtype="f4") for key, value in found.items()}
    return arrays | true | boxes | {"box_label": np.array([0]), "box_scene": np.array([1])}


def samples() -> dict[str, np.ndarray]:
    """Return what a masked pre-training leaves behind: half of the points hidden, and predicted a little off."""
    arrays = room_arrays()
    del arrays["label"]
    visible = np.arange(len(arrays["coord"])) % 2 == 0
    hidden = [arrays["coord"][400 * i : 400 * (i + 1)][~visible[400 * i : 400 * (i + 1)]] for i in range(2)]
    return arrays | {
        "visible": visible,
        "statistic": arrays["coord"][:, 2],
        "reconstruction": np.concatenate(hidden) + np.float32(0.05),
        "reconstruction_offset": np.array([200, 400]),
    }


def scene_records() -> Records:
    """Return a segmentation, a detection, two pre-trainings, and results and encoders without scenes."""
    data = {"classes": CLASSES, "box_classes": BOX_CLASSES}
    pca = room_arrays(scenes=1) | {"pca": np.full((400, 3), 77, dtype="u1")}
    return Records(
        encoders={
            "masked": EncoderRecord("masked", {}, samples=samples()),
            "features": EncoderRecord("features", {}, samples=pca),
            "untrained": EncoderRecord("untrained", {}),
        },
        finetune={
            "detector": ResultRecord("detector", {"data": data}, scenes=boxed(room_arrays())),
            "none": ResultRecord("none", {"data": data}),
            "points": ResultRecord("points", {"data": data}, scenes=predicted(room_arrays())),
        },
        probe={},
        align={},
        stages=[],
        problems=[],
    )
