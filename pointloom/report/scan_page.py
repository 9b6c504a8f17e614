"""One scan as a page: its colours, its features as colours, and labels carried over to it."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pointloom.data.materials import NEUTRAL
from pointloom.data.scenes import Scene
from pointloom.report.charts import color_of
from pointloom.report.page import read_resource, script_safe, template_environment
from pointloom.report.viewer import pack_cloud


def write_scan_page(
    path: Path, scene: Scene, *, pca: NDArray[np.uint8], label: NDArray[np.int64] | None, title: str
) -> None:
    """Write one self-contained HTML file with a 3D view.

    Args:
        path: File to write.
        scene: The scan.
        pca: (n, 3) features as colours.
        label: (n,) numbers of classes carried over from another scan, from 0 on; None without.
        title: Heading.
    """
    from plotly.offline import get_plotlyjs

    middle = (scene.coord.min(axis=0) + scene.coord.max(axis=0)) / 2
    coord = (scene.coord - middle).astype(np.float32)
    coord /= max(float(np.abs(coord).max()), 1e-6)
    grey = np.full(scene.coord.shape, NEUTRAL, dtype=np.uint8)
    views = [("Features (first three principal components)", pca)]
    views.append(("The scan", grey if scene.color is None else scene.color))
    if label is not None:
        palette = np.array([_rgb(color_of(place)) for place in range(int(label.max()) + 1)], dtype=np.uint8)
        views.append(("Labels carried over", palette[label]))
    viewer = [pack_cloud("Scan", name, coord, color, most=MAX_POINTS) for name, color in views]
    page = (
        template_environment(autoescape=True)
        .get_template("scan.html.j2")
        .render(
            title=title,
            points=len(coord),
            viewer=viewer,
            viewer_json=script_safe(json.dumps(viewer)),
            style=read_resource("report.css"),
            script=read_resource("report.js"),
            plotly=get_plotlyjs(),
        )
    )
    path.write_text(page, encoding="utf-8")


MAX_POINTS = 60_000


def _rgb(color: str) -> tuple[int, int, int]:
    value = color.removeprefix("#")
    return int(value[:2], 16), int(value[2:4], 16), int(value[4:6], 16)
