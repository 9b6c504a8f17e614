"""Write a folder beside its place and move it there when it is complete."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointloom.errors import WorkspaceError


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it takes the place of ``target`` only when the block succeeds.

    What a killed process left behind is removed first.

    Raises:
        WorkspaceError: Another process is filling it.
    """
    partial, old, lock = (target.with_name(f".{target.name}.{what}") for what in ("partial", "old", "lock"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(f"another process is writing {target}; wait for its end, or end it") from None
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        else:
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            partial.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            lock.unlink(missing_ok=True)
