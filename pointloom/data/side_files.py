"""Find the files a mesh refers to: materials, textures, buffers."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from trimesh.resolvers import FilePathResolver


class SideFiles(FilePathResolver):
    """Resolve references the way exporters really write them, and remember those that are missing.

    Tried in turn: the reference as it is, with URL escapes decoded, its last part beside the mesh, in
    ``../materials/textures`` (Gazebo models) and in ``textures``; each also without regard to case and with
    underscores for spaces. Nothing outside of ``root`` is read.

    Attributes:
        missing: References for which there was no file.
    """

    def __init__(self, mesh: Path, *, root: Path) -> None:
        super().__init__(str(mesh))
        self.root = root.resolve()
        self.missing: list[str] = []

    def get(self, name: str) -> bytes:
        """Return the content of a referenced file.

        Raises:
            FileNotFoundError: There is none in any of the usual places.
        """
        path = self.find(name)
        if path is None:
            self.missing.append(name.strip())
            raise FileNotFoundError(name)
        return path.read_bytes()

    def find(self, name: str) -> Path | None:
        """Return where a referenced file is, None if it is nowhere."""
        plain = unquote(name.strip()).replace("\\", "/")
        last = plain.rsplit("/", 1)[-1]
        parent = Path(self.parent)
        for candidate in (name.strip(), plain, last, f"../materials/textures/{last}", f"textures/{last}"):
            path = _existing((parent / candidate.lstrip("/")).resolve())
            if path is not None and path.is_relative_to(self.root):
                return path
        return None

    def namespaced(self, namespace: str) -> Any:
        """Return a resolver of a sub-folder."""
        return SideFiles(Path(self.parent) / namespace / "x", root=self.root)


def _existing(path: Path) -> Path | None:
    if path.is_file():
        return path
    if not path.parent.is_dir():
        return None
    wanted = _loose(path.name)
    return next((other for other in path.parent.iterdir() if _loose(other.name) == wanted and other.is_file()), None)


def _loose(name: str) -> str:
    return name.lower().replace(" ", "_")
