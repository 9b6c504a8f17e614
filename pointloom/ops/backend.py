"""The one place that decides which implementation of a point operation runs."""

import functools
import importlib
import importlib.util
import logging
import os
import shutil

import torch

from pointloom.errors import BackendError

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "numba", "triton", "pointnet2")
ENVIRONMENT_VARIABLE = "POINTLOOM_OPS_BACKEND"


@functools.cache
def _announce(backend: str, device_type: str) -> None:
    logger.info("point operations on %s run with the %s backend", device_type, backend)


def choose_backend(device: torch.device, requested: str | None = None) -> str:
    """Return the backend for tensors on ``device``; no backend changes a result beyond ties.

    Args:
        device: Where the tensors are.
        requested: Explicit choice; wins over the environment variable ``POINTLOOM_OPS_BACKEND``.

    Returns:
        ``torch`` (reference, any device; the default on GPUs), ``numba`` (fast, CPU tensors only; the default there),
        ``triton`` (CUDA tensors; on a CPU only in Triton's interpreter) or ``pointnet2`` (CUDA tensors; kernels of the
        package pointnet2_ops, where it is installed). What an operation has no kernel for in the chosen backend, it
        does with torch.

    Raises:
        BackendError: The name is unknown, or the backend cannot work on this device.
    """
    backend = requested or os.environ.get(ENVIRONMENT_VARIABLE) or ("numba" if device.type == "cpu" else "torch")
    if backend not in BACKENDS:
        raise BackendError(
            f"unknown point-operation backend {backend!r}; known: {', '.join(BACKENDS)} "
            f"(set by argument or by {ENVIRONMENT_VARIABLE})"
        )
    if backend == "numba" and device.type != "cpu":
        raise BackendError(f"the numba backend works on CPU tensors, got {device}; use the torch backend there")
    if backend == "triton":
        _check_triton(device)
    if backend == "pointnet2":
        _check_pointnet2(device)
    _announce(backend, device.type)
    return backend


def _check_triton(device: torch.device) -> None:
    if importlib.util.find_spec("triton") is None:
        raise BackendError('the triton backend needs Triton: pip install "pointloom[gpu]"')
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise BackendError(
            f"the triton backend works on CUDA tensors, got {device}; TRITON_INTERPRET=1 lets it run slowly anywhere"
        )
    if device.type == "cuda" and not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        raise BackendError(
            "Triton compiles its driver when it first runs and finds no C compiler: install gcc and Python's headers "
            "(Debian: gcc libc6-dev python3-dev), or name a compiler in CC; the torch backend needs none"
        )


def _check_pointnet2(device: torch.device) -> None:
    if importlib.util.find_spec("pointnet2_ops") is None:
        raise BackendError(
            "the pointnet2 backend needs the package pointnet2_ops, which is compiled from source with a CUDA toolkit; "
            "the triton backend needs no toolkit"
        )
    if device.type != "cuda":
        raise BackendError(f"the pointnet2 backend works on CUDA tensors, got {device}")
    try:
        importlib.import_module("pointnet2_ops.pointnet2_utils")
    except Exception as error:  # it compiles itself on import where its extension does not fit torch
        raise BackendError(
            f"the package pointnet2_ops is there but cannot be loaded ({type(error).__name__}: {error}): build it anew "
            f"for torch {torch.__version__}, or choose the torch or triton backend"
        ) from error
