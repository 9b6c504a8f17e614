"""The images, built and run for real."""

import io
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointloom._version import __version__
from tests.docker.conftest import REVISION, ROOT, STAGES, TARGETS, Run, docker, run_stage

pytestmark = pytest.mark.docker

PINNED = dict(
    line.lower().replace("_", "-").split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
)


def installed(run: Run, target: str) -> dict[str, str]:
    """Version of every library of an image by its name."""
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    listed = run(target, "python", "-c", code).stdout.lower().replace("_", "-").split()
    return dict(line.split("==") for line in listed)


@pytest.mark.parametrize("target", TARGETS)
def test_it_shows_its_help_without_root_network_or_writable_disk(run_image: Run, target: str) -> None:
    done = run_image(target, "pointloom", "--help")
    assert done.returncode == 0, done.stderr
    assert "Self-supervised pre-training for 3D point clouds" in done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_it_says_what_it_was_built_from(images: dict[str, str], target: str) -> None:
    [image] = json.loads(docker("image", "inspect", images[target]).stdout)
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.revision"] == REVISION
    assert image["Config"]["User"] == "1000:1000"
    assert not image["Config"]["Entrypoint"]


def test_raw_shapes_become_a_store_views_and_an_encoder(run_image: Run, folder: Path) -> None:
    for stage in STAGES:
        done = run_stage(run_image, stage, folder)
        assert done.returncode == 0, done.stderr
    numbers = {stage: json.loads((folder / f"{stage}.json").read_text()) for stage in STAGES}
    assert numbers["prepare"]["metrics"]["objects"] == 4
    assert len({numbers[stage]["run"]["git"]["revision"] for stage in STAGES} - {None}) == 1
    assert (folder / "encoder" / "encoder.safetensors").stat().st_uid == 1000


def test_any_other_user_may_run_it(run_image: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    code = "import pointloom.kernels, pathlib; pathlib.Path('written').write_text('x')"
    assert run_image("data", "python", "-c", code, folder=tmp_path, user="31337:0").returncode == 0
    assert (tmp_path / "written").stat().st_uid == 31337


@pytest.mark.parametrize("target", TARGETS)
def test_libraries_are_the_pinned_ones_and_none_is_for_orchestration(run_image: Run, target: str) -> None:
    found = installed(run_image, target)
    assert found.pop("pointloom") == __version__
    assert {name: version.partition("+")[0] for name, version in found.items()}.items() <= PINNED.items()
    assert not found.keys() & {"kfp", "docker", "dvc", "pip", "pytest"}
    assert ("torch" in found) == (target != "data")


def test_no_layer_holds_the_builder_s_configuration_or_a_key(images: dict[str, str]) -> None:
    names, bad = [], re.compile(rb"extra-index-url|find-links|PIP_[A-Z_]*=http|BEGIN [A-Z ]*PRIVATE KEY")
    for name, content in _files_of_layers(images):
        names.append(name)
        assert not bad.search(content), name
    assert sum(name.endswith("pointloom/cli.py") for name in names) == len(TARGETS)
    assert not [name for name in names if re.search(r"(^|/)(pip\.conf|\.env|\.netrc|\.git/|\.pypirc)|^wheels/", name)]


def _files_of_layers(images: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name of every file of every layer and description; layers that images share come once.

    Descriptions and configuration files come with their content, others without.
    """
    command = ["docker", "image", "save", *images.values()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saving:
        with tarfile.open(fileobj=saving.stdout, mode="r|", bufsize=1 << 20) as archive:
            for member in archive:
                opened = archive.extractfile(member)
                if not isinstance(opened, io.BufferedReader):  # a folder
                    continue
                if opened.peek(512)[257:262] != b"ustar":
                    yield member.name, opened.read()
                    continue
                with tarfile.open(fileobj=opened, mode="r|", bufsize=1 << 20) as layer:
                    for file in layer:
                        told = layer.extractfile(file) if file.name.endswith((".json", ".conf")) else None
                        yield file.name, told.read() if told else b""
        assert saving.wait() == 0


def test_what_is_private_does_not_reach_the_builder(images: dict[str, str], tmp_path: Path) -> None:
    """Passwords planted where people leave them, in a copy of the tree that is sent with the same rules."""
    planted = ("docker/.env", ".env", "pointloom/../id_rsa", ".git/config", "docker/mlflow/../.netrc")
    for name in planted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("hunter2")
    (tmp_path / "pointloom").mkdir(exist_ok=True)
    (tmp_path / "pointloom" / "cli.py").write_text("")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {images['data']}\nCOPY . /sent\n")
    built = docker(
        "build", "--quiet", "--file", str(tmp_path / "Dockerfile"), "--tag", "pointloom-sent:test", str(tmp_path)
    )
    assert built.returncode == 0, built.stderr
    sent = docker("run", "--rm", "pointloom-sent:test", "find", "/sent", "-type", "f").stdout.split()
    docker("image", "rm", "pointloom-sent:test")
    assert sent == ["/sent/pointloom/cli.py"]


def test_sizes_stay_within_the_budget_of_the_manual(images: dict[str, str], run_image: Run) -> None:
    if not installed(run_image, "train")["torch"].endswith("+cpu"):
        pytest.skip("the budget is for torch's CPU build; pip has found the one with CUDA libraries")
    check_sizes(images, "CPU")


def check_sizes(images: dict[str, str], flavour: str) -> None:
    """The manual's table of images has a column of budgets for each flavour."""
    text = (ROOT / "docs" / "operations.md").read_text()
    names, *rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text[text.index("| image | stages") : text.index("`make test-docker` holds")].splitlines()
        if line and "---" not in line
    ]
    budget = {
        row[0].removeprefix("pointloom-"): float(row[names.index(f"budget ({flavour})")].split()[0]) for row in rows
    }
    assert set(budget) == set(TARGETS)
    for target, image in images.items():
        size = int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout) / 1e9
        assert size <= budget[target], f"{image} has {size:.2f} GB"


def test_the_requirements_of_the_layers_are_the_package_s_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    printed = []
    for group in ("core", "render", "torch", "multimodal"):
        done = subprocess.run(
            ["python3", "docker/requirements.py", group], cwd=ROOT, capture_output=True, text=True, check=True
        )
        printed += done.stdout.split()
    own = [*project["dependencies"], *project["optional-dependencies"]["multimodal"]]
    assert sorted(printed) == sorted(line.replace(" ", "") for line in own)
