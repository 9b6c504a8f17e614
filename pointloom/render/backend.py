"""Which renderer draws meshes: OpenGL on EGL, or rays where there is no EGL."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pointloom.data.workers import map_in_workers
from pointloom.errors import BackendError
from pointloom.render.cameras import Rig
from pointloom.render.egl import SOFTWARE, EglRenderer
from pointloom.render.mesh import Mesh
from pointloom.render.raycast import RaycastRenderer
from pointloom.render.samples import SampleGrid, Samples


@runtime_checkable
class Renderer(Protocol):
    """Draws meshes from all cameras of a grid of samples.

    Attributes:
        device: What draws, in the words of its library.
    """

    device: str

    def draw(self, mesh: Mesh) -> Iterator[Samples]:
        """Yield the samples of one view after another."""
        ...


RENDERERS: dict[str, type[EglRenderer] | type[RaycastRenderer]] = {"egl": EglRenderer, "raycast": RaycastRenderer}
"""Name -> renderer, the preferred one first."""


@dataclass(frozen=True)
class Choice:
    """A renderer that works.

    Attributes:
        name: In ``RENDERERS``.
        device: What it draws with.
        problem: Why no better one was taken, empty if this is the best.
    """

    name: str
    device: str
    problem: str


def choose_renderer(wanted: str, *, require_gpu: bool) -> Choice:
    """Try renderers in a process of their own, because a broken driver may end it, and take the first that works.

    Args:
        wanted: A name of ``RENDERERS``, or ``auto`` for the first that works.
        require_gpu: Refuse to draw on the CPU.

    Raises:
        BackendError: The renderer does not work here, or there is no GPU though one is required.
    """
    reasons = []
    for name in RENDERERS if wanted == "auto" else (wanted,):
        (outcome,) = map_in_workers(_device_of, [name], num_workers=1, timeout_s=60.0, max_memory_gb=4.0)
        if outcome.result is None:
            reasons.append(f"{name}: {outcome.failure[1] if outcome.failure else 'no answer'}")
            continue
        device = outcome.result
        if require_gpu and (name != "egl" or any(word in device for word in SOFTWARE)):
            raise BackendError(
                f"require_gpu is set, but views would be drawn on the CPU ({name}, {device}); see `pointloom doctor`, "
                f"or set require_gpu: false{''.join(f'. {reason}' for reason in reasons)}"
            )
        return Choice(name, device, "; ".join(reasons))
    raise BackendError(f"no renderer works: {'; '.join(reasons)}")


def _device_of(name: str) -> str:
    return RENDERERS[name](SampleGrid(Rig(layout="openshape12", size=16, fov_degrees=40.0), 1)).device
