"""Repairs for combinations of libraries that pip installs but that do not work together."""

import importlib
import sys
from types import ModuleType
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # an operator lives as long as the library that declared it


def ensure_torchvision() -> ModuleType:
    """Import torchvision; where its wheel lacks the C++ operators that fit this torch, declare them first.

    PyPI's torchvision is built for CUDA. Beside a CPU build of torch its operators cannot be loaded, and then
    ``import torchvision`` fails, and with it open_clip, timm and the image processors of transformers: call this before
    importing one of them. Transforms and models work afterwards; ``torchvision.ops.nms`` and ``torchvision.io`` do not.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        RuntimeError: It does not fit this torch for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declare_operators()
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    _libraries.append(library)
