"""Tensors as what compiled kernels take: arrays, of single or double precision."""

from typing import Any

import torch
from torch import Tensor


def shared_array(tensor: Tensor) -> Any:
    """Share a contiguous tensor's memory with a kernel (another one is copied), bfloat16 as its bits."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def at_least_single(tensor: Tensor) -> Tensor:
    """Return half precision as single precision; double precision stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
