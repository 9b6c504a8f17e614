"""A real MLflow server, and a way to it that is slow, for ``benchmarks.faults``."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ANSWER_S = 3.0
SILENT = 0.2  # share of connections that are never answered while the way is slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def tracking_server(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "kept"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 120
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if time.monotonic() > deadline:
                    raise TimeoutError("the MLflow server did not start in 120 s")
                time.sleep(0.1)
            yield
        finally:
            server.terminate()


@contextlib.contextmanager
def slow_proxy(outer: int, inner: int, rng: random.Random) -> Iterator[threading.Event]:
    """Pass connections on, slowly as long as the event is set; some requests are passed on and their answer is not."""
    slow = threading.Event()
    slow.set()
    listener = socket.create_server(("127.0.0.1", outer))
    threading.Thread(target=_accept, args=(listener, inner, slow, rng), daemon=True).start()
    try:
        yield slow
    finally:
        listener.close()


def _accept(listener: socket.socket, inner: int, slow: threading.Event, rng: random.Random) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            silent = rng.random() < SILENT
            threading.Thread(target=_pass_on, args=(client, inner, slow, silent), daemon=True).start()


def _pass_on(client: socket.socket, inner: int, slow: threading.Event, silent: bool) -> None:
    with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", inner)) as server:
        while True:
            for ready in select.select([client, server], [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                if ready is client:
                    server.sendall(data)
                    continue
                if slow.is_set():
                    time.sleep(ANSWER_S)
                if not (silent and slow.is_set()):
                    client.sendall(data)
