"""From one object of a prepared store to its encoded views."""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pointloom.data.originals import load_original
from pointloom.data.quarantine import RejectedError
from pointloom.data.shards import ObjectStore
from pointloom.data.surfaces import Surface
from pointloom.data.views import ObjectViews, encode_views
from pointloom.render.backend import RENDERERS, Renderer
from pointloom.render.mesh import mesh_of
from pointloom.render.samples import SampleGrid, shrink
from pointloom.render.splat import draw_cloud

VERSION = 1
"""Raised whenever the same object and parameters give other pictures."""
MIN_COVERAGE = 0.005
"""A view that fills less of the picture is empty."""
MIN_CONTRAST = 4
"""A view whose colours differ by less, of 255, is of one colour."""


@dataclass(frozen=True)
class RenderItem:
    """One object to render.

    Attributes:
        row: In the prepared store.
        uid: Of the object.
        path: Of its source file.
        sha256: Of its source file.
        transform: Source to store, 4 x 4 row-major.
        has_faces: It is a mesh, not a cloud.
    """

    row: int
    uid: str
    path: str
    sha256: str
    transform: tuple[float, ...]
    has_faces: bool


@dataclass(frozen=True)
class ObjectRenderer:
    """How objects become views; called in worker processes, each of which keeps one renderer.

    Attributes:
        source: Folder of the source files.
        dataset: Prepared store.
        grid: Cameras and samples.
        renderer: Name in ``RENDERERS``.
    """

    source: Path
    dataset: Path
    grid: SampleGrid
    renderer: str

    def __call__(self, item: RenderItem) -> ObjectViews:
        """Render one object; a shape without faces is drawn from the stored points.

        Raises:
            RejectedError: The shape cannot be loaded, or no view shows it.
        """
        shape = None
        if item.has_faces:
            shape = load_original(self.source, uid=item.uid, path=item.path, sha256=item.sha256)
        if isinstance(shape, Surface):
            mesh = mesh_of(shape, np.array(item.transform).reshape(4, 4))
            drawn = _renderer(self.renderer, self.grid).draw(mesh)
        else:
            store, rows = _store(self.dataset), np.array([item.row])
            normal, color = store.normals(rows)[0], store.colors(rows)[0]
            drawn = draw_cloud(store.coords(rows)[0], normal=normal, color=color, grid=self.grid)
        pictures = [(shrink(samples.rgb, self.grid.supersample), samples.depth) for samples in drawn]
        rgb, depth = [colors for colors, _ in pictures], [distance for _, distance in pictures]
        coverage = np.array([(distance > 0).mean() for distance in depth])
        contrast = np.array([np.ptp(colors, axis=(0, 1)).max() for colors in rgb])
        valid = (coverage >= MIN_COVERAGE) & (contrast >= MIN_CONTRAST)
        if not valid.any():
            detail = (
                f"the fullest view covers {coverage.max():.2%} of the picture, its colours differ by {contrast.max()}"
            )
            raise RejectedError("nothing_visible", detail)
        return encode_views(item.uid, rgb, depth, valid=valid.tolist())

    def warm_up(self) -> None:
        """Import and open what every object needs, before its time is counted."""
        import trimesh

        logging.getLogger("trimesh").setLevel(logging.CRITICAL)  # what matters ends up in the quarantine
        trimesh.creation.box()
        _renderer(self.renderer, self.grid)
        _store(self.dataset)


@cache
def _renderer(name: str, grid: SampleGrid) -> Renderer:
    return RENDERERS[name](grid)


@cache
def _store(path: Path) -> ObjectStore:
    return ObjectStore(path)
