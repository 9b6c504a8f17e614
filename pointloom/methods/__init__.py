"""Pre-training methods by name, one published method per file."""

from pointloom.methods.mae import MAE

METHODS = {"mae": MAE}

__all__ = ["METHODS"]
