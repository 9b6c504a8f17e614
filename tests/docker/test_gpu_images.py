"""The images with torch's CUDA build, on a machine without a GPU: what can be shown there."""

from pathlib import Path

import pytest
import yaml

from pointloom.workspace import template
from tests.docker.conftest import Run, run_stage
from tests.docker.test_images import PINNED, check_sizes, installed

pytestmark = pytest.mark.docker

LIBRARIES = """
import torch
assert torch.version.cuda, torch.__version__
print(torch.backends.cudnn.version(), torch.cuda.nccl.version())
"""
DRIVER = """
import pathlib, subprocess, sysconfig, triton
source = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "driver.c"
folders = [source.parent / "include", sysconfig.get_paths("posix_prefix")["include"]]
command = ["gcc", "-c", "-fPIC", source, "-o", "/tmp/driver.o", *(f"-I{folder}" for folder in folders)]
subprocess.run(command, check=True)
"""


@pytest.mark.parametrize("target", ["train", "multimodal"])
def test_torch_is_its_cuda_build_and_finds_its_libraries(run_gpu_image: Run, target: str) -> None:
    """cuDNN and NCCL tell their versions only when they are loaded, with what they are linked against."""
    done = run_gpu_image(target, "python", "-c", LIBRARIES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["train", "multimodal", "data"])
def test_cuda_libraries_are_pinned_and_only_where_torch_is(run_gpu_image: Run, target: str) -> None:
    found = installed(run_gpu_image, target)
    del found["pointloom"]
    assert found.items() <= PINNED.items()
    assert any(name.startswith("nvidia-") for name in found) == ("triton" in found) == (target != "data")


def test_triton_finds_a_compiler_and_headers_for_its_driver(run_gpu_image: Run) -> None:
    done = run_gpu_image("train", "python", "-c", DRIVER)
    assert done.returncode == 0, done.stderr


def test_a_job_that_asks_for_a_gpu_does_not_run_on_the_cpu_unnoticed(run_gpu_image: Run, folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    training = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))["pretrain"]["mae"]
    training |= {"epochs": 1, "batch_size": 2, "sampling": training["sampling"] | {"num_points": 64, "pool": 128}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params | {"pretrain": training}))
    prepared = run_stage(run_gpu_image, "prepare", folder)
    assert prepared.returncode == 0, prepared.stderr
    refused = run_stage(run_gpu_image, "pretrain", folder, device="cuda")
    assert refused.returncode == 2
    assert "POINTLOOM_DEVICE=cuda asks for a GPU, and torch" in refused.stderr
    assert not (folder / "encoder").exists()
    done = run_stage(run_gpu_image, "pretrain", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "encoder" / "encoder.safetensors").is_file()


def test_sizes_stay_within_the_budget_of_the_manual(gpu_images: dict[str, str]) -> None:
    check_sizes(gpu_images, "GPU")
