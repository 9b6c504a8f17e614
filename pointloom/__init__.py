"""Self-supervised pre-training for 3D point clouds.

``load_encoder`` opens a pre-trained encoder from a folder or an MLflow URI; everything else is reached through the
``pointloom`` command and the stage functions in ``pointloom.stages``.
"""

from typing import TYPE_CHECKING, Any

from pointloom._version import __version__

if TYPE_CHECKING:
    from pointloom.encoder import PretrainedEncoder, load_encoder

__all__ = ["PretrainedEncoder", "__version__", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Import the public names that need torch on first use, so that ``import pointloom`` stays light."""
    if name in {"PretrainedEncoder", "load_encoder"}:
        from pointloom import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module 'pointloom' has no attribute {name!r}")
