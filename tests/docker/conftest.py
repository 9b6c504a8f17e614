"""Images and containers for tests marked ``docker``."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TAG = os.environ.get("TAG", "test")
REVISION = subprocess.run(
    ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.strip()
TARGETS = ("train", "multimodal", "data")
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def docker(*arguments: str, seconds: float = 600) -> Done:
    """Run a docker command to its end."""
    command = ["docker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Name of the image of each target, built from this source by ``make images``.

    Where ``docker/base.sh`` has made base images, they are used, unless the environment names others. With TAG in the
    environment, images of this tag are tested as they are.
    """
    if not shutil.which("docker") or docker("info", "--format", "{{.ServerVersion}}").returncode != 0:
        pytest.skip("no Docker engine answers")
    named = {target: f"pointloom-{target}:{TAG}" for target in TARGETS}
    if "TAG" in os.environ:
        return named
    environment = dict(os.environ)
    if docker("image", "inspect", "pointloom-build:test").returncode == 0:
        environment.setdefault("BASE", "pointloom-base:test")
        environment.setdefault("BUILD_BASE", "pointloom-build:test")
    command = ["make", "images", f"TAG={TAG}", f"REVISION={REVISION}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return named


@pytest.fixture
def run_image(images: dict[str, str]) -> Run:
    """Run a command in an image the way a strict cluster does: no root, no writable root, no network, no privileges."""

    def run(
        target: str, *command: str, folder: Path | None = None, user: str = "1000:1000"
    ) -> subprocess.CompletedProcess[str]:
        strict = ["--rm", "--read-only", "--tmpfs", "/tmp", "--user", user, "--network", "none", "--cap-drop", "ALL"]
        strict += ["--security-opt", "no-new-privileges", "--shm-size", "1g"]
        mounted = ["--volume", f"{folder}:/work"] if folder else []
        return docker("run", *strict, *mounted, images[target], *command)

    return run
