"""Resume state: a folder outside of a stage's outputs, keyed by everything that shapes the result."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pointloom.errors import WorkspaceError
from pointloom.train.processes import is_leader


@contextmanager
def resume_state(state: Path, *, stage: str, shaped_by: Mapping[str, Any], shard: str = "") -> Iterator[Path]:
    """Give a stage the folder of its earlier attempts, locked; it is removed when the stage succeeds.

    Other parameters or data have another folder, so nothing is ever resumed under changed settings. Of several training
    processes only the leader holds, fills and removes it.

    Args:
        state: Folder for all resume state.
        stage: Name of the stage.
        shaped_by: Everything that shapes the result (parameters, digests of inputs), as JSON values.
        shard: Which part of the stage wants the folder (``0-of-4``): several parts share it, and none removes it.

    Raises:
        WorkspaceError: Another process runs the same stage, or the same part of it, with the same settings.
    """
    fingerprint = hashlib.sha256(json.dumps(shaped_by, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = state / stage / fingerprint
    if not is_leader():
        yield folder
        return
    with locked_folder(folder, stage=stage, shard=shard):
        (folder / "shaped_by.json").write_text(json.dumps(shaped_by, indent=1, sort_keys=True, default=str) + "\n")
        yield folder
        if not shard:
            shutil.rmtree(folder)


@contextmanager
def locked_folder(folder: Path, *, stage: str, shard: str = "") -> Iterator[None]:
    """Hold a folder of resume state: alone, or, as a part of a stage, beside its other parts.

    Raises:
        WorkspaceError: Another process holds it, or is the same part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        whole, own = folder / "lock", folder / f"lock-{shard}"
        for lock, kind in ((whole, fcntl.LOCK_SH), (own, fcntl.LOCK_EX)) if shard else ((whole, fcntl.LOCK_EX),):
            handle = stack.enter_context(lock.open("a+"))
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                what = f"shard {shard} of {stage}" if lock == own else f"{stage}, or a shard of it,"
                raise WorkspaceError(
                    f"{what} is already running with these parameters and data (lock {lock} is held); "
                    "wait for it, or run in another workspace"
                ) from None
        yield
