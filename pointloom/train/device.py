"""Where to compute."""

import os

import torch

from pointloom.errors import BackendError
from pointloom.train.processes import num_started


def best_device() -> torch.device:
    """Return the GPU where there is one, of several processes each its own, else the CPU.

    ``POINTLOOM_DEVICE=cuda`` asks for a GPU, so that a job that has paid for one does not run on the CPU unnoticed;
    ``POINTLOOM_DEVICE=cpu`` keeps away from it.

    Raises:
        BackendError: A GPU was asked for and is not there, or there are fewer than processes.
    """
    wanted, present = os.environ.get("POINTLOOM_DEVICE", ""), torch.cuda.is_available()
    if wanted not in {"", "cpu", "cuda"}:
        raise BackendError(f"POINTLOOM_DEVICE={wanted}: expected cuda, cpu, or nothing for the best that there is")
    if wanted == "cuda" and not present:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        raise BackendError(
            f"POINTLOOM_DEVICE=cuda asks for a GPU, and torch ({build}) sees none: look at nvidia-smi, the driver and "
            "the container runtime, give the step a GPU, or set POINTLOOM_DEVICE=cpu"
        )
    if wanted == "cpu" or not present:
        return torch.device("cpu")
    if num_started() == 1:
        return torch.device("cuda")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"process {number + 1} of this machine has no GPU: torch sees {torch.cuda.device_count()}; start at most "
            "one process per GPU (POINTLOOM_PROCESSES)"
        )
    return torch.device("cuda", number)
