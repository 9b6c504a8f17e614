"""Scenes to look at: pictures and a viewer of two panes, truth beside prediction; without files there is nothing.

``scenes.npz`` in the folder of a result, a few scenes of n points in all: ``coord`` (n, 3), ``color`` (n, 3) uint8,
``offset`` (s,) ends of the scenes, ``name`` (s,); ``label`` and ``prediction`` (n,), -1 where unknown; predicted boxes
``box_scene`` (k,) place of the scene, ``box_center`` and ``box_size`` (k, 3), ``box_heading``, ``box_label`` and
``box_score`` (k,); true ones ``true_scene``, ``true_center``, ``true_size``, ``true_heading``, ``true_label``.
Labels are places in ``data.classes`` of its ``result.json``; those of boxes in ``data.box_classes`` where it has them.
Of the predicted boxes those with the best scores are shown, as many as there are true ones.

``scene_samples.npz`` in the folder of an encoder: ``coord``, ``color``, ``offset`` and, if known, ``name`` as above;
any of ``statistic`` (n,) how informative, ``visible`` (n,) bool, ``reconstruction`` (m, 3) of the hidden points with
``reconstruction_offset`` (s,), ``pca`` (n, 3) uint8 colours of features.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pointloom.render.points import Camera, draw_points
from pointloom.report.album import Album, file_name
from pointloom.report.inputs import Records
from pointloom.report.scene_clouds import Layer, SceneCloud, result_clouds, sample_clouds

Content = dict[str, Any]

SCENES = 3  # of each result and each pre-training
SHOWN_POINTS = 16384  # of a scene in the viewer
DRAWN_POINTS = 32768  # of a scene in a picture
CUT = 2.2  # metres above the floor; pictures leave out what is higher, so that one looks into rooms
NEAR = 0.12  # metres; pictures leave out what is that near to the two sides of the scene that the camera looks through
CAMERA = Camera(azimuth=-65.0, elevation=48.0, extent=1.0)
EDGES = ((0, 1, 2, 3, 0, 4, 5, 6, 7, 4), (1, 5), (2, 6), (3, 7))
"""The twelve edges of a box as lines over its corners."""


def scene_blocks(inputs: Records, album: Album) -> list[Content]:
    """Draw the scenes of every result and pre-training, one strip of all layers per scene.

    Args:
        inputs: What the earlier stages left behind.
        album: Where pictures go.
    """
    blocks: dict[str, Content] = {}
    for name, kind, place, cloud in _clouds(inputs):
        block = blocks.setdefault(f"{kind}/{name}", {"name": name, "kind": kind, "pictures": [], "legend": {}})
        for layer in cloud.layers:
            block["legend"] |= {word: _css(color) for word, color in layer.legend.items() if word}
        image = np.concatenate([draw_layer(cloud, layer, 2 * album.size) for layer in cloud.layers], axis=1)
        path = album.add(f"scenes/{file_name(f'{kind}_{name}')}_{place:02d}", image, colors=256)
        titles = [layer.title for layer in cloud.layers]
        block["pictures"].append({"title": cloud.title, "image": path, "columns": titles})
    return list(blocks.values())


def scene_entries(inputs: Records) -> list[Content]:
    """Return the scenes of the viewer with all their layers."""
    return [
        {"group": f"{name} ({'pre-training' if kind == 'pretrain' else kind})", "title": f"{cloud.title} · {name}"}
        | _packed(cloud)
        for name, kind, _, cloud in _clouds(inputs)
    ]


def _clouds(inputs: Records) -> Iterator[tuple[str, str, int, SceneCloud]]:
    """Yield name, stage, number and cloud of the scenes of all results and pre-trainings."""
    for kind, results in (("finetune", inputs.finetune), ("probe", inputs.probe)):
        for result in results.values():
            data = result.card.get("data", {})
            classes, box_classes = data.get("classes", []), data.get("box_classes") or data.get("classes", [])
            found = result_clouds(result.scenes, classes=classes, box_classes=box_classes)
            for place, cloud in zip(range(SCENES), found, strict=False):
                yield result.name, kind, place, cloud
    for encoder in inputs.encoders.values():
        for place, cloud in zip(range(SCENES), sample_clouds(encoder.samples), strict=False):
            yield encoder.name, "pretrain", place, cloud


def draw_layer(cloud: SceneCloud, layer: Layer, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture of a scene seen from above and aside, without near walls and what is above ``CUT``."""
    low, high = _bounds(cloud.coord)
    center, radius = (low + high) / 2, np.float32(np.linalg.norm(high - low) / 2 + 1e-6)
    coord = cloud.coord if layer.coord is None else layer.coord
    near = (coord[:, 0] > high[0] - NEAR) | (coord[:, 1] < low[1] + NEAR)  # CAMERA stands at +x, -y
    kept = np.flatnonzero((coord[:, 2] <= high[2]) & ~(near & (coord[:, 2] > low[2] + NEAR)))
    kept = kept[:: max(1, len(kept) // DRAWN_POINTS)]
    disc = float(np.clip(1.5 * size / np.sqrt(max(len(kept), 1)), 1.0, 3.0))
    shown = (coord[kept] - center) / radius
    image = Image.fromarray(draw_points(shown, color=layer.color[kept], camera=CAMERA, size=size, radius=disc))
    pen = ImageDraw.Draw(image)
    for corners, color, _ in layer.boxes:
        place = CAMERA.project(((corners - center) / radius).astype(np.float32))
        pixels = [((x + 1) / 2 * size, (1 - y) / 2 * size) for x, y, _ in place.tolist()]
        for line in EDGES:
            pen.line([pixels[corner] for corner in line], fill=color, width=2)
    return np.asarray(image)


def _bounds(coord: Float32[np.ndarray, "n 3"]) -> tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]:
    """Return the lowest and highest place of what a picture shows of a scene, a few stray points aside."""
    low, high = np.percentile(coord, [0.5, 99.5], axis=0).astype(np.float32)
    return low, np.array([high[0], high[1], min(high[2], low[2] + CUT)], dtype=np.float32)


def _packed(cloud: SceneCloud) -> Content:
    """Return a scene for the viewer: int16 coordinates in units of ``scale`` about its middle, 8-bit colours."""
    middle = ((cloud.coord.min(axis=0) + cloud.coord.max(axis=0)) / 2).astype(np.float32)
    scale = float(np.abs(cloud.coord - middle).max(initial=1e-6)) / 32000
    layers = []
    for layer in cloud.layers:
        kept = _thinned(len(layer.color))
        packed = {"title": layer.title, "color": _base64(layer.color[kept]), "lines": _lines(layer, middle)}
        packed["legend"] = [[word, _css(color)] for word, color in layer.legend.items()]
        if layer.coord is not None:
            packed["coord"] = _quantised(layer.coord[kept] - middle, scale)
        layers.append(packed)
    coord = cloud.coord[_thinned(len(cloud.coord))]
    return {"scale": scale, "coord": _quantised(coord - middle, scale), "layers": layers}


def _thinned(num: int) -> NDArray[np.int64]:
    """Return which of ``num`` points the viewer shows."""
    return np.linspace(0, num - 1, min(num, SHOWN_POINTS)).round().astype(np.int64)


def _quantised(coord: Float32[np.ndarray, "n 3"], scale: float) -> str:
    return _base64(np.clip(coord / scale, -32767, 32767).round().astype("<i2"))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _lines(layer: Layer, middle: Float32[np.ndarray, "3"]) -> list[Content]:
    """Return one polyline per colour of boxes, and the words of the boxes at their upper corners."""
    lines: dict[str, Content] = {}
    for corners, color, word in layer.boxes:
        line = lines.setdefault(_css(color), {"color": _css(color), "points": [], "words": [], "places": []})
        local = (corners - middle).round(3)
        for edge in EDGES:
            line["points"] += [*local[list(edge)].tolist(), None]
        line["words"].append(word)
        line["places"].append(local[4:].mean(axis=0).round(3).tolist())
    return list(lines.values())


def _css(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
