"""One picture per object: the rendered view nearest to the report's own camera where there is one, else its points."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.render.points import Camera
from pointloom.report.album import Album, file_name


class Pictures:
    """Pictures of objects, each drawn once and kept in an album.

    Attributes:
        store: Prepared objects.
        views: Rendered views, None where there are none.
        album: Where pictures go.
    """

    def __init__(self, store: ObjectStore, views: ViewStore | None, album: Album) -> None:
        self.store = store
        self.views = views
        self.album = album
        self._row_of = {uid: row for row, uid in enumerate(store.uids.tolist())}

    def row(self, uid: str) -> int | None:
        """Return the row of an object in the store, None where the store does not know it."""
        return self._row_of.get(uid)

    def of(self, uid: str) -> str | None:
        """Return the path of an object's picture in the album, None for an object that the store does not know."""
        row = self.row(uid)
        if row is None:
            return None
        name = f"objects/{file_name(uid)}"
        path = f"thumbnails/{name}.png"
        if path not in self.album.pictures:
            view = self._view(uid)
            self.album.add(name, self.album.draw_objects(self.store, [row])[0] if view is None else view)
        return path

    def _view(self, uid: str) -> UInt8[np.ndarray, "h w 3"] | None:
        row = None if self.views is None else self.views.row_of.get(uid)
        if self.views is None or row is None or not self.views.valid[row].any():
            return None
        toward = self.views.info.poses[:, :3, 2] @ Camera().axes()[2]  # the camera looks along its own -Z
        best = int(np.where(self.views.valid[row], toward, -np.inf).argmax())
        return shrink(self.views.rgb(row)[best], self.album.size)


def shrink(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Return a square picture of ``size`` pixels."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def find_views(data: Path, digest: str) -> ViewStore | None:
    """Return the rendered views with a digest among ``data/views/*``, None where they are no longer there."""
    for folder in sorted((data / "views").glob("*")):
        views = ViewStore(folder)
        if views.info.digest == digest:
            return views
    return None
