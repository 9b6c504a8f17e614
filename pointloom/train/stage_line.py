"""The connection of the sender of tracking events to the stage that has started it."""

import contextlib
import os
import select
import sys
from typing import IO


class StageLine:
    """The line back to the stage; whatever libraries print goes to the log instead."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(self, line: str) -> None:
        """Send a line, if the stage still listens."""
        with contextlib.suppress(OSError):
            print(line, file=self._pipe, flush=True)

    def close(self) -> None:
        """Let the stage go."""
        with contextlib.suppress(OSError):
            self._pipe.close()


def stage_lives(stdin: IO[bytes], wait_s: float) -> bool:
    """Wait a moment; return False as soon as the stage has closed the pipe, which happens however it ends."""
    readable, _, _ = select.select([stdin], [], [], wait_s)
    return not readable
