"""Compiled CPU kernels of the point operations; ``ops`` wraps, documents and checks them.

They live outside of ``ops`` because the shape-checking import hook of the tests cannot wrap compiled functions, and
so that the worker processes of ``prepare`` need not import torch. Batches come as one long array of points with the
``starts`` of the clouds in it and one last entry, their end; indices count from the start of their own cloud.
Coordinates must be finite and so must their squared distances (``tree.LARGEST``): the callers check that, because the
compiler is told that there is no NaN.
"""

from pointloom.kernels.farthest import fps_order

__all__ = ["fps_order"]
