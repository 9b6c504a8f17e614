"""Ask a running loop to stop at a point where its state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether a signal asked to stop, and which one."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def raise_if_set(self) -> None:
        """Raise what the signal stands for.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            SystemExit: The process was asked to end; the code 75 says that a retry will continue.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise SystemExit(75)


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a flag while the block runs; a second signal acts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature is the signal module's
        request.signal = number
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
