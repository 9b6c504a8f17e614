"""Shared fixtures: seeds, one thread, and the folder of reference data that developers have and users do not."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

# Tests send Ctrl-C to child processes; a runner that was itself started in the background would pass on "ignore it".
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and golden outputs; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("reference data (../shared) is not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Outputs of the official models."""
    return shared / "golden"
