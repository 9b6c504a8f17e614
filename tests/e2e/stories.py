"""A pipeline on the smoke profile, run twice: what the end-to-end tests look at."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.e2e.processes import pointloom


@dataclass(frozen=True)
class Story:
    """A run and its repetition."""

    workspace: Path
    first: CompletedProcess[str]
    again: CompletedProcess[str]

    def content(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        found: dict[str, Any] = json.loads((self.workspace / "report" / "report.json").read_text())
        return found


def run_twice(base: Path, pipeline: str) -> Story:
    """Make a workspace in ``base`` and run the pipeline in it two times."""
    workspace = base / "ws"
    assert pointloom("init", str(workspace), "--pipeline", pipeline, "--profile", "smoke", cwd=base).returncode == 0
    run = ("run", "--workspace", str(workspace))
    return Story(workspace, pointloom(*run, cwd=base, seconds=1800), pointloom(*run, cwd=base))


def executed(done: CompletedProcess[str]) -> list[str]:
    """Return the stages that DVC ran."""
    return re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr)
