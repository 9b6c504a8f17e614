"""Real workspaces, real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Without what the test run itself may have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "POINTLOOM_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def pointloom(*arguments: str, cwd: Path, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "pointloom.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=seconds
    )


class RunningPipeline:
    """``pointloom run`` in the background, with its output in a file."""

    def __init__(self, workspace: Path, log: Path) -> None:
        self.log = log
        with log.open("w") as output:
            command = [sys.executable, "-m", "pointloom.cli", "run", "--workspace", str(workspace)]
            self.process = subprocess.Popen(
                command, cwd=workspace, env=environment(), stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def wait_for(self, condition: Callable[[], object], seconds: float = 300) -> None:
        """Wait until something has happened, while the run goes on."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the run has ended too early:\n{self.text}"
            assert time.monotonic() < deadline, f"it did not happen in time:\n{self.text}"
            time.sleep(0.05)

    def stage_process(self, stage: str) -> psutil.Process | None:
        """The process of a stage, None while it does not run."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = child.cmdline()
            except psutil.Error:
                continue
            if stage in words[:4] and any("pointloom" in word for word in words[:3]) and "-c" not in words[:2]:
                return child
        return None

    def finish(self, seconds: float = 900) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(timeout=seconds)
