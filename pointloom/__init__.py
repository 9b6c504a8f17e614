"""Self-supervised pre-training for 3D point clouds.

``load_encoder`` opens a pre-trained encoder from a folder or an MLflow URI, ``search`` finds the shapes of a workspace
by words or by a shape; everything else is reached through the ``pointloom`` command and the stage functions in
``pointloom.stages``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pointloom._version import __version__

if TYPE_CHECKING:
    from pointloom.encoder import PretrainedEncoder, PretrainedSceneEncoder, load_encoder
    from pointloom.report.hits import Hit
    from pointloom.shape_search import search

__all__ = ["Hit", "PretrainedEncoder", "PretrainedSceneEncoder", "__version__", "load_encoder", "search"]

_HOMES = {
    "Hit": "pointloom.report.hits",
    "PretrainedEncoder": "pointloom.encoder",
    "PretrainedSceneEncoder": "pointloom.encoder",
    "load_encoder": "pointloom.encoder",
    "search": "pointloom.shape_search",
}


def __getattr__(name: str) -> Any:
    """Import the public names that need torch on first use, so that ``import pointloom`` stays light."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pointloom' has no attribute {name!r}")
