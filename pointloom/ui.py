"""Serve the MLflow user interface of a workspace."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pointloom.errors import BackendError, WorkspaceError
from pointloom.train.spool import tracking_target
from pointloom.workspace import open_workspace

HOST = "127.0.0.1"
FIRST_PORT = 5000
PORTS_TRIED = 100


def is_free(port: int) -> bool:
    """Tell whether a port of this machine can be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(asked: int | None) -> int:
    """Return the asked port, or the first free one from 5000.

    Raises:
        WorkspaceError: The asked port is in use, or none is free.
    """
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    free = next((port for port in ports if port != asked and is_free(port)), None)
    if asked is not None:
        if is_free(asked):
            return asked
        raise WorkspaceError(f"port {asked} is in use; free is for example --port {free}")
    if free is None:
        raise WorkspaceError(f"no free port from {ports[0]} to {ports[-1]}; give one with --port")
    return free


def serve(folder: Path, *, port: int | None, announce: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Raises:
        WorkspaceError: No workspace, no runs yet, or the port is in use.
        BackendError: The MLflow server is not installed.
    """
    workspace = open_workspace(folder)
    target = tracking_target(workspace.folder)
    if target is None:
        raise WorkspaceError(f"{workspace.folder / 'workspace.yaml'} has no tracking_uri: there are no runs to show")
    if not target.uri.startswith("sqlite:"):
        announce(f"The runs are on a server of their own: {target.uri}")
        return
    if not Path(target.uri.removeprefix("sqlite:///")).is_file():
        raise WorkspaceError(f"{workspace.folder} has no runs yet; make some: pointloom run")
    if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("flask") is None:
        raise BackendError('the MLflow server is not installed; run: pip install "pointloom[workspace]"')
    chosen = choose_port(port)
    announce(f"MLflow UI: http://localhost:{chosen}  (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(chosen), "--workers", "1"]
    command += ["--backend-store-uri", target.uri, "--default-artifact-root", Path(str(target.artifact_root)).as_uri()]
    command += ["--uvicorn-opts", "--log-level warning"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, cwd=workspace.folder, env={**os.environ, **quiet}, process_group=0)
    try:
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has workers of its own
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    if code != 0:
        raise WorkspaceError(f"the MLflow server ended with code {code}; its message is above")
