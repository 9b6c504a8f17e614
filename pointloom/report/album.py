"""Small pictures of point clouds: drawn once, saved as PNG for the markdown, embedded as data URIs in the HTML."""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from pointloom.data.shards import ObjectStore
from pointloom.render.points import Camera, draw_points

PALETTE_COLORS = 64
DRAWN_POINTS = 8192
VISIBLE_COLOR = (70, 90, 120)
PREDICTED_COLOR = (213, 94, 0)


@dataclass
class Album:
    """Pictures by relative path.

    Attributes:
        folder: Folder of the report; pictures go to ``thumbnails/`` in it. None keeps them in memory only.
        size: Width and height of one object in pixels.
        pictures: PNG bytes by path relative to ``folder``.
    """

    folder: Path | None
    size: int
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, image: UInt8[np.ndarray, "h w 3"], *, colors: int = PALETTE_COLORS) -> str:
        """Save a picture with at most ``colors`` colours and return its path relative to the report."""
        path = f"thumbnails/{name}.png"
        buffer = io.BytesIO()
        small = Image.fromarray(image).quantize(colors, dither=Image.Dither.NONE)
        small.save(buffer, format="PNG", optimize=True)
        if self.folder is not None:
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(buffer.getvalue())
        self.pictures[path] = buffer.getvalue()
        return path

    def data_uri(self, path: str) -> str:
        """Return a picture as a ``data:`` URI."""
        return "data:image/png;base64," + base64.b64encode(self.pictures[path]).decode("ascii")

    def draw(
        self, coord: Float32[np.ndarray, "n 3"], color: UInt8[np.ndarray, "n 3"] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Draw one object; discs grow as points get fewer, so that surfaces look closed."""
        radius = float(np.clip(1.4 * self.size / np.sqrt(max(len(coord), 1)), 1.2, 2.4))
        return draw_points(coord, color=color, camera=Camera(), size=self.size, radius=radius)

    def draw_objects(self, store: ObjectStore, rows: Sequence[int]) -> list[UInt8[np.ndarray, "h w 3"]]:
        """Draw stored objects in their colours, lit from the camera."""
        index = np.asarray(rows, dtype=np.int64)
        count = min(DRAWN_POINTS, store.info.num_points)
        coord, color = store.coords(index, count), store.colors(index, count)
        lit = light(color, store.normals(index, count))
        return [self.draw(points, shade) for points, shade in zip(coord, lit, strict=True)]

    def draw_reconstruction(
        self,
        coord: Float32[np.ndarray, "n 3"],
        visible: np.ndarray,
        reconstruction: Float32[np.ndarray, "m 3"],
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Draw input, masked input, and the latter with predicted points in orange; the input fills the picture."""
        center = (coord.min(axis=0) + coord.max(axis=0)) / 2
        radius = np.float32(max(np.linalg.norm(coord - center, axis=1).max(), 1e-6))
        coord, reconstruction = (coord - center) / radius, (reconstruction - center) / radius
        seen = coord[visible]
        both = np.concatenate([seen, reconstruction])
        color = np.repeat(
            np.array([VISIBLE_COLOR, PREDICTED_COLOR], dtype=np.uint8), [len(seen), len(reconstruction)], axis=0
        )
        grey = np.broadcast_to(np.array(VISIBLE_COLOR, dtype=np.uint8), coord.shape)
        return strip([self.draw(coord, grey), self.draw(seen, grey[: len(seen)]), self.draw(both, color)])


def strip(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w2 3"]:
    """Put pictures of one size side by side."""
    return np.concatenate(images, axis=1)


def light(color: UInt8[np.ndarray, "b n 3"], normal: Float32[np.ndarray, "b n 3"]) -> UInt8[np.ndarray, "b n 3"]:
    """Darken faces that turn away from the camera; both sides of a surface count, artists leave normals inside out."""
    toward = Camera().axes()[2] + 0.6 * Camera().axes()[1]
    facing = np.abs(normal @ (toward / np.linalg.norm(toward)).astype(np.float32))
    return np.asarray(color * (0.55 + 0.45 * facing[..., None]), dtype=np.uint8)


def component_colors(feature: Float[np.ndarray, "s n c"]) -> UInt8[np.ndarray, "s n 3"]:
    """Return the first three principal components of all points together as red, green and blue."""
    flat = feature.reshape(-1, feature.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(axis=0)
    axes = np.linalg.eigh(flat.T @ flat)[1].T[:-4:-1]  # rows: the three largest, first things first
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    parts = flat @ axes.T
    low, high = np.percentile(parts, [2, 98], axis=0)
    shade = np.clip((parts - low) / np.maximum(high - low, 1e-9), 0, 1)
    if shade.shape[1] < 3:
        shade = np.pad(shade, ((0, 0), (0, 3 - shade.shape[1])), constant_values=0.5)
    return np.asarray(30 + 210 * shade, dtype=np.uint8).reshape(*feature.shape[:2], 3)


def file_name(text: str) -> str:
    """Return a name that is safe in every file system and in a URL, and another one for every other text."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", text)[:100]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
