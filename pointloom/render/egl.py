"""Draw meshes with OpenGL on EGL, without a screen: on the CPU through Mesa's llvmpipe, on a GPU through its driver.

A process makes one ``EglRenderer`` and keeps it. What a mesh needs is released after the mesh, because the objects of
moderngl are not freed with their Python wrappers.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointloom.errors import BackendError
from pointloom.render.mesh import AMBIENT, HEADLIGHT, Mesh
from pointloom.render.samples import SampleGrid, Samples

if TYPE_CHECKING:
    import moderngl

LIB_GL = "libGL.so.1"
LIB_EGL = "libEGL.so.1"
"""Names with a version: those without are in development packages only."""
EGL_HINT = "apt-get install libegl1 libgl1 libgl1-mesa-dri"
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "SwiftShader")
"""Parts of the names of renderers that use no GPU."""
_GL_SRGB8 = 0x8C41
_WHITE = np.full((1, 1, 3), 255, dtype=np.uint8)

_VERTEX = """
#version 330
uniform mat4 projection;
uniform vec3 eye;
in vec3 corner;
in vec3 normal;
in vec3 multiplier;
in vec2 uv;
flat out vec3 face_normal;
out vec3 toward;
out vec3 color;
out vec2 at;
void main() {
    gl_Position = projection * vec4(corner, 1.0);
    face_normal = normal;
    toward = eye - corner;
    color = multiplier;
    at = uv;
}
"""
_FRAGMENT = """
#version 330
uniform sampler2D image;
uniform float ambient;
uniform float headlight;
flat in vec3 face_normal;
in vec3 toward;
in vec3 color;
in vec2 at;
out vec4 shown;
void main() {
    vec3 linear = clamp(color * texture(image, at).rgb, 0.0, 1.0);
    vec3 srgb = mix(linear * 12.92, 1.055 * pow(max(linear, 1e-9), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, linear));
    shown = vec4(srgb * (ambient + headlight * abs(dot(face_normal, normalize(toward)))), 1.0);
}
"""


def open_context(*, libgl: str = LIB_GL, libegl: str = LIB_EGL) -> "moderngl.Context":
    """Open a context of OpenGL without a screen, with one thread where it runs on the CPU.

    Raises:
        BackendError: moderngl or a library is missing, or there is no device.
    """
    os.environ["LP_NUM_THREADS"] = "1"  # there is a process per core; more threads would only take turns
    try:
        import moderngl
    except ImportError as error:
        raise BackendError(f'EGL needs moderngl ({error}); run: pip install "pointloom[multimodal]"') from error
    try:
        settings: dict[str, Any] = {"backend": "egl", "libgl": libgl, "libegl": libegl}
        return moderngl.create_context(standalone=True, **settings)
    except Exception as error:  # moderngl raises plain Exception
        raise BackendError(
            f"EGL does not work ({error}); on Debian and Ubuntu: {EGL_HINT}; an NVIDIA GPU in a container also needs "
            "NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility"
        ) from error


class EglRenderer:
    """Draws meshes from all cameras of a grid of samples.

    Attributes:
        device: What OpenGL says it draws with.
    """

    def __init__(self, grid: SampleGrid) -> None:
        """Open the context of this process.

        Raises:
            BackendError: EGL does not work here.
        """
        self._grid = grid
        self._context = open_context()
        self.device = str(self._context.info["GL_RENDERER"])
        side = grid.side
        self._color = self._context.renderbuffer((side, side), 4)
        self._depth = self._context.depth_texture((side, side))
        self._target = self._context.framebuffer([self._color], self._depth)
        self._program: Any = self._context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._program["ambient"] = AMBIENT
        self._program["headlight"] = HEADLIGHT

    def draw(self, mesh: Mesh) -> Iterator[Samples]:
        """Yield the samples of one view after another."""
        import moderngl

        context, side = self._context, self._grid.side
        with ExitStack() as stack:
            vertices = context.buffer(_interleaved(mesh))
            stack.callback(vertices.release)
            layout = (vertices, "3f 3f 3f 2f", "corner", "normal", "multiplier", "uv")
            array = context.vertex_array(self._program, [layout])
            stack.callback(array.release)
            textures = [self._upload(batch.texture) for batch in mesh.batches]
            for texture in textures:
                stack.callback(texture.release)
            context.enable_only(moderngl.DEPTH_TEST)
            self._target.use()
            for projection, eye in zip(self._grid.projections, self._grid.rig.poses[:, :3, 3], strict=True):
                self._program["projection"].write(projection.T.astype(np.float32).tobytes())
                self._program["eye"].write(eye.astype(np.float32).tobytes())
                self._target.clear(1.0, 1.0, 1.0, 1.0)
                for batch, texture in zip(mesh.batches, textures, strict=True):
                    texture.use()
                    array.render(first=3 * batch.start, vertices=3 * (batch.stop - batch.start))
                color = self._target.read(components=3)
                depth = np.frombuffer(self._target.read(components=1, attachment=-1, dtype="f4"), dtype=np.float32)
                yield Samples(
                    rgb=np.frombuffer(color, dtype=np.uint8).reshape(side, side, 3),
                    depth=self._grid.eye_depth(depth.reshape(side, side)),
                )

    def _upload(self, texture: NDArray[np.uint8] | None) -> Any:
        pixels = np.ascontiguousarray((_WHITE if texture is None else texture)[::-1])
        size = (pixels.shape[1], pixels.shape[0])
        uploaded = self._context.texture(size, 3, pixels.tobytes(), alignment=1, internal_format=_GL_SRGB8)
        uploaded.build_mipmaps()
        return uploaded


def _interleaved(mesh: Mesh) -> bytes:
    """Return corner, normal, multiplier and uv of every corner, one after another."""
    normal = np.broadcast_to(mesh.normal[:, None], mesh.corners.shape)
    return np.concatenate([mesh.corners, normal, mesh.color, mesh.uv], axis=2).tobytes()
