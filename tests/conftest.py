"""Shared fixtures: seeds, one thread, and the folder of reference data that developers have and users do not."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

# Tests send Ctrl-C to child processes; a runner that was itself started in the background would pass on "ignore it".
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _outside_of_workspaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stages run in a workspace record in its MLflow; the repository is one, and tests must leave nothing there."""
    with contextlib.chdir(tmp_path_factory.mktemp("elsewhere")):
        yield


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
