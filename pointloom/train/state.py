"""Resume state: a folder outside of a stage's outputs, keyed by everything that shapes the result."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pointloom.errors import WorkspaceError


@contextmanager
def resume_state(state: Path, *, stage: str, shaped_by: Mapping[str, Any]) -> Iterator[Path]:
    """Give a stage the folder of its earlier attempts, locked; it is removed when the stage succeeds.

    Other parameters or data have another folder, so nothing is ever resumed under changed settings.

    Args:
        state: Folder for all resume state.
        stage: Name of the stage.
        shaped_by: Everything that shapes the result (parameters, digests of inputs), as JSON values.

    Raises:
        WorkspaceError: Another process runs the same stage with the same settings.
    """
    fingerprint = hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = state / stage / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(
                f"{stage} is already running with these parameters and data (lock {lock} is held); "
                "wait for it, or run in another workspace"
            ) from None
        (folder / "shaped_by.json").write_text(json.dumps(shaped_by, indent=1, sort_keys=True, default=str) + "\n")
        yield folder
        shutil.rmtree(folder)
