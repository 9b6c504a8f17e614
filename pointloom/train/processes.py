"""Which of several training processes this is; torchrun says so in the environment. Needs only the standard library."""

import os
import threading
import time

PARENT_POLL_S = 1.0


def num_started() -> int:
    """Return how many processes torchrun has started on all nodes, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_leader() -> bool:
    """Return whether this process writes files, shows progress and records metrics; the others only compute."""
    return num_started() == 1 or int(os.environ.get("RANK", "0")) == 0


def leave_to_leader() -> None:
    """End this process if it is not the leader: everything that it was needed for is done.

    Raises:
        SystemExit: With code 0.
    """
    if not is_leader():
        raise SystemExit(0)


def end_with_parent() -> None:
    """End this process soon after the one that has started it: one that was killed could not end it itself."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
