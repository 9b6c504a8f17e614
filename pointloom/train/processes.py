"""Which of several training processes this is; torchrun says so in the environment. Needs only the standard library."""

import os


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
