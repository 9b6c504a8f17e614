"""Clouds of scenes for the report: what a result or a pre-training left behind, coloured in several ways."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from pointloom.data.scene_boxes import footprints
from pointloom.report.album import PREDICTED_COLOR, VISIBLE_COLOR
from pointloom.report.inputs import Arrays

UNLABELLED = (226, 228, 231)
HIDDEN = (234, 236, 239)
RIGHT, WRONG = (196, 204, 212), (200, 30, 30)
TRUE_BOX, PREDICTED_BOX = (0, 130, 90), (213, 94, 0)
LARGE = {"wall": (186, 194, 204), "floor": (150, 158, 168), "ceiling": (208, 213, 219), "clutter": (120, 126, 134)}
COLORS = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233), (214, 190, 40),
    (140, 86, 75), (120, 80, 180), (60, 60, 70), (23, 190, 207), (240, 80, 120), (110, 170, 50), (70, 90, 200),
    (180, 120, 60), (255, 150, 130), (0, 100, 80), (170, 50, 130), (160, 160, 60), (90, 50, 20),
)  # fmt: skip
"""Colours of the classes that are no walls and floors, in the order of the classes."""

HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""From little to much; dark to light also without colours."""

LEAST_BOXES = 5  # predicted ones that are shown where there are fewer true ones

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """One way to look at a scene.

    Attributes:
        title: What it shows.
        color: (n, 3) of its points.
        coord: (n, 3) of points of its own; None for those of the scene.
        boxes: Corner points (8, 3) of each box with its colour and its words.
        legend: Words of the colours.
    """

    title: str
    color: UInt8[np.ndarray, "n 3"]
    coord: Float32[np.ndarray, "n 3"] | None = None
    boxes: tuple[tuple[np.ndarray, Color, str], ...] = ()
    legend: Mapping[str, Color] = field(default_factory=dict)


@dataclass(frozen=True)
class SceneCloud:
    """A scene and the ways to look at it; the first two are shown side by side."""

    title: str
    coord: Float32[np.ndarray, "n 3"]
    layers: tuple[Layer, ...]


def class_colors(classes: Sequence[str]) -> dict[str, Color]:
    """Return a colour for every class: quiet ones for walls and floors, different ones for all others."""
    others = [name for name in classes if name not in LARGE]
    return {name: LARGE[name] if name in LARGE else COLORS[others.index(name) % len(COLORS)] for name in classes}


def result_clouds(arrays: Arrays, *, classes: Sequence[str], box_classes: Sequence[str]) -> Iterator[SceneCloud]:
    """Yield the scenes of a ``scenes.npz``: truth and prediction first, then mistakes and plain colours."""
    if not {"coord", "color", "offset", "name"} <= arrays.keys():
        return
    for place, (start, stop) in enumerate(_ranges(arrays["offset"])):
        coord = arrays["coord"][start:stop].astype(np.float32)
        plain = arrays["color"][start:stop].astype(np.uint8)
        true_boxes = _boxes(arrays, place, "true", box_classes, TRUE_BOX)
        found = _boxes(arrays, place, "box", box_classes, PREDICTED_BOX)
        if "true_scene" in arrays and "box_score" in arrays:
            found = found[: max(len(true_boxes), LEAST_BOXES)]
        layers = []
        if {"label", "prediction"} <= arrays.keys():
            label, prediction = (arrays[key][start:stop].astype(np.int64) for key in ("label", "prediction"))
            layers = _label_layers(label, prediction, classes)
        if {"true_center", "box_center"} & arrays.keys():
            pale = (255 - (255 - plain.astype(np.float32)) * 0.6).astype(np.uint8)
            both = {"true": TRUE_BOX, "predicted": PREDICTED_BOX}
            layers += [
                Layer("true boxes", pale, boxes=true_boxes, legend={"true": TRUE_BOX}),
                Layer(f"predicted boxes (best {len(found)})", pale, boxes=found, legend={"predicted": PREDICTED_BOX}),
                Layer("true and predicted boxes", pale, boxes=true_boxes + found, legend=both),
            ]
        yield SceneCloud(str(arrays["name"][place]), coord, (*layers, Layer("colours", plain)))


def sample_clouds(arrays: Arrays) -> Iterator[SceneCloud]:
    """Yield the scenes of a ``scene_samples.npz``: what was visible, what was predicted, what was informative."""
    if not {"coord", "color", "offset"} <= arrays.keys():
        return
    rebuilt = list(_ranges(arrays["reconstruction_offset"])) if "reconstruction_offset" in arrays else []
    for place, (start, stop) in enumerate(_ranges(arrays["offset"])):
        coord = arrays["coord"][start:stop].astype(np.float32)
        plain = arrays["color"][start:stop].astype(np.uint8)
        layers = []
        visible = arrays["visible"][start:stop].astype(bool) if "visible" in arrays else np.ones(len(coord), dtype=bool)
        if "visible" in arrays:
            color = np.where(visible[:, None], plain, np.array(HIDDEN, dtype=np.uint8))
            share = f"visible points ({100 * visible.mean():.0f} %)"
            layers.append(Layer(share, color, legend={"hidden": HIDDEN}))
        if place < len(rebuilt) and "reconstruction" in arrays:
            predicted = arrays["reconstruction"][slice(*rebuilt[place])].astype(np.float32)
            layers.append(_reconstruction(coord[visible], predicted))
        if "statistic" in arrays:
            heat = heat_colors(arrays["statistic"][start:stop].astype(np.float64))
            layers.append(Layer("informative points", heat, legend={"little": HEAT[0], "": HEAT[2], "much": HEAT[-1]}))
        if "pca" in arrays:
            layers.append(Layer("features (first three principal components)", arrays["pca"][start:stop]))
        title = str(arrays["name"][place]) if "name" in arrays else f"scene {place + 1}"
        layers.insert(1 if len(layers) == 1 else len(layers), Layer("colours", plain))
        yield SceneCloud(title, coord, tuple(layers))


def heat_colors(value: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    """Return colours from dark (little) to light (much) between the 2nd and the 98th percentile."""
    low, high = np.percentile(value, [2, 98]) if len(value) else (0.0, 1.0)
    share = np.clip((value - low) / max(high - low, 1e-12), 0, 1)
    steps = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(share, steps, channel) for channel in np.array(HEAT).T], axis=1).astype(np.uint8)


def _ranges(offset: Int[np.ndarray, " s"]) -> Iterator[tuple[int, int]]:
    """Yield where scenes begin and end; offsets are the ends."""
    ends = [int(end) for end in offset]
    yield from zip([0, *ends[:-1]], ends, strict=True)


def _label_layers(
    label: Int[np.ndarray, " n"], prediction: Int[np.ndarray, " n"], classes: Sequence[str]
) -> list[Layer]:
    colors = class_colors(classes)
    table = np.array([*colors.values(), UNLABELLED], dtype=np.uint8)  # the last one is that of -1
    layers = []
    for title, values in (("true classes", label), ("predicted classes", prediction)):
        present = {classes[i]: colors[classes[i]] for i in np.unique(values[values >= 0])}
        legend = present | ({"unlabelled": UNLABELLED} if (values < 0).any() else {})
        layers.append(Layer(title, table[values], legend=legend))
    right = np.where((label == prediction)[:, None], np.array(RIGHT), np.array(WRONG))
    shade = np.where((label < 0)[:, None], np.array(HIDDEN), right).astype(np.uint8)
    known = label >= 0
    share = (
        f"mistakes ({100 * (label != prediction)[known].mean():.0f} % of the labelled points)"
        if known.any()
        else "mistakes"
    )
    return [*layers, Layer(share, shade, legend={"right": RIGHT, "wrong": WRONG, "unlabelled": HIDDEN})]


def _reconstruction(seen: Float32[np.ndarray, "v 3"], predicted: Float32[np.ndarray, "m 3"]) -> Layer:
    color = np.repeat(np.array([VISIBLE_COLOR, PREDICTED_COLOR], dtype=np.uint8), [len(seen), len(predicted)], axis=0)
    legend = {"visible": VISIBLE_COLOR, "predicted": PREDICTED_COLOR}
    return Layer("reconstruction", color, coord=np.concatenate([seen, predicted]), legend=legend)


def _boxes(
    arrays: Arrays, place: int, kind: str, classes: Sequence[str], color: Color
) -> tuple[tuple[np.ndarray, Color, str], ...]:
    """Return the boxes of one scene, the best first where they have scores; ``kind`` is ``true`` or ``box``."""
    keys = [f"{kind}_{name}" for name in ("scene", "center", "size", "heading", "label")]
    if not set(keys) <= arrays.keys():
        return ()
    rows = np.flatnonzero(arrays[keys[0]] == place)
    if kind == "box" and "box_score" in arrays:
        rows = rows[np.argsort(-arrays["box_score"][rows], kind="stable")]
    center, size, heading, label = (arrays[key][rows] for key in keys[1:])
    corners = box_corners(center.astype(np.float64), size.astype(np.float64), heading.astype(np.float64))
    words = [classes[i] if 0 <= i < len(classes) else str(i) for i in label.tolist()]
    if kind == "box" and "box_score" in arrays:
        words = [f"{word} {score:.2f}" for word, score in zip(words, arrays["box_score"][rows].tolist(), strict=True)]
    return tuple((corner, color, word) for corner, word in zip(corners, words, strict=True))


def box_corners(
    center: Float[np.ndarray, "k 3"], size: Float[np.ndarray, "k 3"], heading: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "k 8 3"]:
    """Return the corners of boxes, the four lower ones first, each four counter-clockwise seen from above."""
    base = footprints(center, size, heading)
    height = center[:, 2, None] + np.array([-0.5, 0.5]) * size[:, 2, None]
    lower, upper = (np.concatenate([base, np.repeat(z[:, None, None], 4, axis=1)], axis=2) for z in height.T)
    return np.concatenate([lower, upper], axis=1)
