"""Pre-training methods by name, one published method per file."""

from pointloom.methods.align import Align
from pointloom.methods.distill import Distill
from pointloom.methods.m2ae import M2AE
from pointloom.methods.mae import MAE
from pointloom.methods.mm3dscene import MM3DScene
from pointloom.methods.pqae import PQAE

METHODS = {"mae": MAE, "m2ae": M2AE, "pqae": PQAE, "mm3dscene": MM3DScene, "align": Align, "distill": Distill}

__all__ = ["METHODS"]
