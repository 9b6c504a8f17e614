"""Draw meshes by casting rays with Embree: the same pictures as OpenGL's, where there is none."""

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from numpy.typing import NDArray

from pointloom.data.materials import linear_to_bytes, sample_texture
from pointloom.errors import BackendError
from pointloom.render.mesh import AMBIENT, HEADLIGHT, Mesh
from pointloom.render.samples import SampleGrid, Samples


class RaycastRenderer:
    """Draws meshes from all cameras of a grid of samples.

    Attributes:
        device: Name and version of the library that casts the rays.
    """

    def __init__(self, grid: SampleGrid) -> None:
        """Prepare the rays.

        Raises:
            BackendError: embreex is missing.
        """
        try:
            import embreex  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise BackendError(
                f'the ray caster needs embreex ({error}); run: pip install "pointloom[multimodal]"'
            ) from error
        self._grid = grid
        self._directions = grid.directions().astype(np.float32)
        self.device = f"embreex {version('embreex')}"

    def draw(self, mesh: Mesh) -> Iterator[Samples]:
        """Yield the samples of one view after another.

        Note:
            Textures are read at the nearest texel, OpenGL reads them smoothly.
        """
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, mesh.corners)
        side = self._grid.side
        for pose in self._grid.rig.poses:
            near = self._near_mesh(mesh, pose)
            directions = self._directions[near] @ pose[:3, :3].T.astype(np.float32)
            origins = np.tile(pose[:3, 3].astype(np.float32), (len(near), 1))
            hits = scene.run(origins, directions, output=1)
            hit = np.flatnonzero(hits["primID"] >= 0)
            u, v = hits["u"][hit], hits["v"][hit]
            rgb = np.full((side * side, 3), 255, dtype=np.uint8)
            weight = np.stack([1 - u - v, u, v], axis=1)
            rgb[near[hit]] = _shade(mesh, hits["primID"][hit].astype(np.int64), weight, directions[hit])
            depth = np.zeros(side * side, dtype=np.float32)
            depth[near[hit]] = hits["tfar"][hit]
            yield Samples(rgb=rgb.reshape(side, side, 3), depth=self._grid.centers(depth.reshape(side, side)))

    def _near_mesh(self, mesh: Mesh, pose: Float64[np.ndarray, "4 4"]) -> NDArray[np.int64]:
        """Return the samples in the rectangle around a mesh; there is nothing to hit elsewhere."""
        x, y, z = ((mesh.corners.reshape(-1, 3) - pose[:3, 3]) @ pose[:3, :3]).T
        K, side = self._grid.intrinsics, self._grid.side
        column, row = K[0, 2] - K[0, 0] * x / z, K[1, 2] + K[1, 1] * y / z
        columns, rows = (np.arange(max(0, int(at.min()) - 1), min(side, int(at.max()) + 2)) for at in (column, row))
        return (rows[:, None] * side + columns).ravel()


def _shade(
    mesh: Mesh,
    face: NDArray[np.int64],
    weight: Float32[np.ndarray, "p 3"],
    direction: Float32[np.ndarray, "p 3"],
) -> UInt8[np.ndarray, "p 3"]:
    """Return the colour of points that are given by their face and the weights of its corners."""
    linear = np.einsum("pk,pkc->pc", weight, mesh.color[face])
    for batch in mesh.batches:
        if batch.texture is not None:
            at = np.flatnonzero((face >= batch.start) & (face < batch.stop))
            uv = np.einsum("pk,pkd->pd", weight[at], mesh.uv[face[at]])
            linear[at] *= sample_texture(batch.texture, uv)
    cosine = np.abs(np.einsum("pc,pc->p", mesh.normal[face], direction)) / np.linalg.norm(direction, axis=1)
    light = AMBIENT + HEADLIGHT * cosine
    return np.rint(linear_to_bytes(linear) * light[:, None]).astype(np.uint8)
