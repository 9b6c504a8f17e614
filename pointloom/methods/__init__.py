"""Pre-training methods by name, one published method per file."""

from pointloom.methods.align import Align
from pointloom.methods.distill import Distill
from pointloom.methods.mae import MAE

METHODS = {"mae": MAE, "align": Align, "distill": Distill}

__all__ = ["METHODS"]
