"""Images and containers for tests marked ``docker``."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TAG = os.environ.get("TAG", "test")
REVISION = subprocess.run(
    ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.strip()
TARGETS = ("train", "multimodal", "data")
BUILD_BASES = {"cpu": "pointloom-build:test", "gpu": "pointloom-build-gpu:test"}
PARAMS = """
prepare: {source: folder, num_objects: 0, unlabelled_synthetic: 0, num_points: 128, seed: 0, test_fraction: 0.25,
  up: auto, train_list: null, test_list: null, max_failure_ratio: 0.5, num_workers: 1}
render: {layout: openshape12, size: 32, supersample: 1, fov_degrees: 40, renderer: egl, require_gpu: false,
  max_failure_ratio: 0.5}
pretrain: {method: untrained, encoder: point_mae_tiny, encoder_args: {}, num_points: 64, seed: 0}
"""
CUBE = """OFF
8 6 0
-1 -1 -1
1 -1 -1
1 1 -1
-1 1 -1
-1 -1 1
1 -1 1
1 1 1
-1 1 1
4 0 3 2 1
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""
STAGES = {
    "prepare": ("data", "--source", "raw"),
    "render": ("data", "--source", "raw", "--views", "views"),
    "pretrain": ("train", "--encoder", "encoder"),
}
"""The image of a stage, and its paths besides the store."""
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def docker(*arguments: str, seconds: float = 600) -> Done:
    """Run a docker command to its end."""
    command = ["docker", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)


def built(flavour: str) -> dict[str, str]:
    """Name of the image of each target, built from this source by ``make images``.

    Where ``docker/base.sh`` has made base images, they are used, unless the environment names others. With TAG in the
    environment, images of this tag are tested as they are.
    """
    if not shutil.which("docker") or docker("info", "--format", "{{.ServerVersion}}").returncode != 0:
        pytest.skip("no Docker engine answers")
    tag = TAG if flavour == "cpu" else f"{TAG}-{flavour}"
    named = {target: f"pointloom-{target}:{tag}" for target in TARGETS}
    if "TAG" in os.environ:
        return named
    environment = dict(os.environ)
    if docker("image", "inspect", BUILD_BASES[flavour]).returncode == 0:
        environment.setdefault("BASE", "pointloom-base:test")
        environment.setdefault("BUILD_BASE", BUILD_BASES[flavour])
    elif flavour == "gpu":
        pytest.skip("torch's CUDA build is several GB: docker/base.sh gpu fetches it")
    command = ["make", "images", f"TAG={tag}", f"REVISION={REVISION}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return named


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """Name of the image of each target, with torch's CPU build where ``docker/base.sh`` has found one."""
    return built("cpu")


@pytest.fixture(scope="session")
def gpu_images() -> dict[str, str]:
    """Name of the image of each target, with torch's CUDA build."""
    return built("gpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with shapes and parameters, owned by the user of the images."""
    raw = tmp_path / "raw" / "cube"
    raw.mkdir(parents=True)
    for index in range(4):
        (raw / f"{index}.off").write_text(CUBE.replace("1 1 1\n", f"1 1 {1 + index / 10}\n"))
    (tmp_path / "params.yaml").write_text(PARAMS)
    tmp_path.chmod(0o777)
    if os.getuid() == 0:
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 1000, 1000)
    return tmp_path


@pytest.fixture
def run_image(images: dict[str, str]) -> Run:
    """Run a command in an image the way a strict cluster does: no root, no writable root, no network, no privileges."""
    return partial(run_strictly, images)


@pytest.fixture
def run_gpu_image(gpu_images: dict[str, str]) -> Run:
    """As ``run_image``, in an image of the GPU flavour."""
    return partial(run_strictly, gpu_images)


def run_strictly(
    images: dict[str, str],
    target: str,
    *command: str,
    folder: Path | None = None,
    user: str = "1000:1000",
    device: str = "",
) -> Done:
    """Run a command in the image of a target without what it does not need."""
    strict = ["--rm", "--read-only", "--tmpfs", "/tmp", "--user", user, "--network", "none", "--cap-drop", "ALL"]
    strict += ["--security-opt", "no-new-privileges", "--shm-size", "1g", "--env", f"POINTLOOM_DEVICE={device}"]
    mounted = ["--volume", f"{folder}:/work"] if folder else []
    return docker("run", *strict, *mounted, images[target], *command)


def run_stage(run: Run, stage: str, folder: Path, device: str = "") -> Done:
    """Run a stage on the shapes of ``folder``."""
    target, *paths = STAGES[stage]
    command = ["pointloom", stage, "--params", f"params.yaml:{stage}", "--metrics", f"{stage}.json"]
    return run(target, *command, "--dataset", "objects", "--state", "state", *paths, folder=folder, device=device)
