"""What `make demo` passes on is what was typed, whatever characters it has."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def commands(*words: str) -> list[list[str]]:
    """Return the words of every `pointloom` command that make would run."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *words],
        cwd=ROOT, env=kept, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "/pointloom " in line]


@pytest.mark.parametrize("folder", ["/my data/Möbel & co's (1), new", "/a$b/c;d", "shapes/"])
def test_paths_reach_the_command_as_they_were_typed(folder: str) -> None:
    (init, run) = commands("demo", f"DATA={folder}", "TRAIN_LIST=it's.txt", "TEST_LIST=b.txt", "PROFILE=smoke", "UP=z")
    options = dict(zip(init[3::2], init[4::2], strict=True))
    assert options == {
        "--pipeline": "pretrain", "--profile": "smoke", "--data": folder, "--up": "z",
        "--train-list": "it's.txt", "--test-list": "b.txt",
    }  # fmt: skip
    assert init[1] == "init"
    assert init[2].startswith("runs/")
    assert init[2].endswith("-smoke")
    assert init[2].isascii()
    assert run[1:] == ["run", "--workspace", init[2]]


def test_workspaces_are_named_by_data_pipeline_and_profile() -> None:
    places = [
        commands("demo", *words)[0][2]
        for words in ([], ["PROFILE=smoke"], ["PIPELINE=scenes"], ["DATA=/x/a b/"], ["NAME=it's"])
    ]
    assert places == ["runs/demo", "runs/smoke", "runs/scenes-demo", "runs/a-b-demo", "runs/it's"]
    assert commands("ui", "DATA=/x/a b/")[0][1:] == ["ui", "--workspace", "runs/a-b-demo"]
