"""The device of the GPU tests; ``POINTLOOM_TEST_DEVICE=cpu`` tries the tests themselves where there is no GPU."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A CUDA device; tests are skipped where there is none."""
    chosen = torch.device(os.environ.get("POINTLOOM_TEST_DEVICE", "cuda"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return chosen
