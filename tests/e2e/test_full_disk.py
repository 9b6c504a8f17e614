"""A disk that is too small is a clear error, and the work goes on once there is room."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pointloom.workspace import template
from tests.e2e.processes import environment

pytestmark = pytest.mark.slow

SMALL = 300_000


def prepare(folder: Path, *, limit: int | None) -> subprocess.CompletedProcess[str]:
    (folder / "params.yaml").write_text(template("profiles/pretrain/smoke.yaml"))
    (folder / "raw").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pointloom.cli", "prepare", "--params", "params.yaml:prepare", "--source", "raw"]
    command += ["--dataset", "data/objects", "--metrics", "reports/prepare.json"]

    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, preexec_fn=restrict
    )


def test_write_that_fails_is_one_message_and_the_next_run_goes_on(tmp_path: Path) -> None:
    failed = prepare(tmp_path, limit=SMALL)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "Error: " in failed.stderr
    assert not (tmp_path / "data" / "objects" / "dataset.json").exists()
    done = prepare(tmp_path, limit=None)
    assert done.returncode == 0, done.stderr
    assert "going on where the last run stopped" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
def test_full_file_system_is_one_message(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        failed = prepare(small, limit=None)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "free some space" in failed.stderr.lower()
