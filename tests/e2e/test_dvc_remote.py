"""DVC for a team: what one has made, another pulls, in a folder without git as in a container."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pointloom.data.shards import ObjectStore
from pointloom.workspace import WorkspaceChoices, init_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("dvc.yaml", "dvc.lock", "params.yaml", "workspace.yaml", "lists")
"""What has to be in an image or a volume so that outputs can be pulled."""


def environment(path: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_"))}
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def dvc(folder: Path, *words: str, path: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, env=environment(path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_empty_folder_without_git_pulls_what_another_has_pushed(tmp_path: Path) -> None:
    programs = tmp_path / "bin"  # the commands of this environment and a shell, but no git
    programs.mkdir()
    for name in ("sh", "bash", "env"):
        (programs / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    with_git, without_git = f"{Path(sys.executable).parent}:{os.environ['PATH']}", str(programs)
    assert not shutil.which("git", path=without_git)

    made = tmp_path / "made"
    init_workspace(WorkspaceChoices(folder=made, profile="smoke"))
    params = yaml.safe_load((made / "params.yaml").read_text())
    params["prepare"] |= {"num_objects": 12, "num_points": 32, "num_workers": 1}
    (made / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (made / "workspace.yaml").write_text("source: raw\n")  # nothing is recorded
    dvc(made, "remote", "add", "--default", "team", str(tmp_path / "store"), path=with_git)
    dvc(made, "repro", "prepare", path=with_git)
    dvc(made, "push", path=with_git)
    expected = ObjectStore(made / "data/objects").info.digest

    pod = tmp_path / "pod"
    (pod / ".dvc").mkdir(parents=True)
    for name in NEEDED:
        (shutil.copytree if (made / name).is_dir() else shutil.copy)(made / name, pod / name)
    (pod / ".dvc/config").write_text(
        f"[core]\n    no_scm = True\n    analytics = false\n    remote = team\n['remote \"team\"']\n"
        f"    url = {tmp_path / 'store'}\n"
    )
    dvc(pod, "pull", "data/objects", path=without_git)
    assert ObjectStore(pod / "data/objects").info.digest == expected
    (pod / "raw").mkdir()
    shutil.copy(made / "raw/README.md", pod / "raw/README.md")
    (pod / "reports").mkdir()
    shutil.copy(made / "reports/prepare.json", pod / "reports/prepare.json")
    assert "Data and pipelines are up to date" in dvc(pod, "status", "prepare", path=without_git)
