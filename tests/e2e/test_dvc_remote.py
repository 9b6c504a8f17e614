"""DVC for a team: what one has made, another pulls, in a folder without git as in a container, by a folder or by S3."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest
import requests
import yaml
from moto.server import ThreadedMotoServer

from pointloom.data.shards import ObjectStore
from pointloom.workspace import WorkspaceChoices, init_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("dvc.yaml", "dvc.lock", "params.yaml", "workspace.yaml", "lists")
"""What has to be in an image or a volume so that outputs can be pulled."""


@dataclass(frozen=True)
class Remote:
    """Where a team keeps its outputs.

    Attributes:
        url: As `dvc remote add` takes it.
        settings: What `dvc remote modify` sets besides.
        keys: Variables of whoever may read and write there.
    """

    url: str
    settings: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """Return the `.dvc/config` of a folder without git."""
        lines = [f"    {key} = {value}" for key, value in {"url": self.url, **self.settings}.items()]
        return "\n".join(["[core]", "    no_scm = True", "    remote = team", "['remote \"team\"']", *lines, ""])


def s3_url(server: ThreadedMotoServer) -> str:
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@pytest.fixture(scope="module")
def s3() -> Iterator[Remote]:
    """An S3 server over HTTP with a bucket and one user, that checks the signature of every request."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = s3_url(server)
    anybody = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    try:
        boto3.client("s3", endpoint_url=url, **anybody).create_bucket(Bucket="team")
        users = boto3.client("iam", endpoint_url=url, **anybody)
        users.create_user(UserName="member")
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        users.put_user_policy(UserName="member", PolicyName="store", PolicyDocument=policy)
        made = users.create_access_key(UserName="member")["AccessKey"]
        keys = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=30).raise_for_status()
        yield Remote("s3://team/pointloom", {"endpointurl": url}, keys)
    finally:
        requests.post(f"{url}/moto-api/reset-auth", data="inf", timeout=30)
        requests.post(f"{url}/moto-api/reset", timeout=30)
        server.stop()


@pytest.fixture(params=["folder", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "folder":
        return Remote(str(tmp_path / "store"))
    found: Remote = request.getfixturevalue("s3")
    return found


def try_dvc(folder: Path, *words: str, path: str, keys: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "GIT_"))}
    no_other_keys = {"HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true"}
    fixed = {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "NO_PROXY": "*"}
    command = [sys.executable, "-m", "dvc", *words]
    environment = kept | no_other_keys | fixed | keys
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def dvc(folder: Path, *words: str, path: str, keys: dict[str, str]) -> str:
    done = try_dvc(folder, *words, path=path, keys=keys)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_empty_folder_without_git_pulls_what_another_has_pushed(remote: Remote, tmp_path: Path) -> None:
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
    dvc(made, "remote", "add", "--default", "team", remote.url, path=with_git, keys={})
    for name, value in remote.settings.items():
        dvc(made, "remote", "modify", "team", name, value, path=with_git, keys={})
    dvc(made, "repro", "prepare", path=with_git, keys={})
    dvc(made, "push", path=with_git, keys=remote.keys)
    expected = ObjectStore(made / "data/objects").info.digest

    pod = tmp_path / "pod"
    (pod / ".dvc").mkdir(parents=True)
    for name in NEEDED:
        (shutil.copytree if (made / name).is_dir() else shutil.copy)(made / name, pod / name)
    (pod / ".dvc/config").write_text(remote.config)
    dvc(pod, "pull", "data/objects", path=without_git, keys=remote.keys)
    assert ObjectStore(pod / "data/objects").info.digest == expected
    (pod / "raw").mkdir()
    shutil.copy(made / "raw/README.md", pod / "raw/README.md")
    (pod / "reports").mkdir()
    shutil.copy(made / "reports/prepare.json", pod / "reports/prepare.json")
    assert "Data and pipelines are up to date" in dvc(pod, "status", "prepare", path=without_git, keys={})


WRONG = {
    "password": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "team", "403"),
    "no key": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "team", "Unable to locate credentials"),
    "bucket": ({}, "absent", "The specified bucket does not exist"),
}
"""What differs from the settings that work: keys, bucket; and what DVC then says."""


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_of_s3_are_said_and_nothing_is_pushed(s3: Remote, tmp_path: Path, case: str) -> None:
    keys, bucket, said = WRONG[case]
    path = os.environ["PATH"]
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(Remote(f"s3://{bucket}/{tmp_path.name}", s3.settings).config)
    (tmp_path / "weights").write_text("learned")
    dvc(tmp_path, "add", "weights", path=path, keys={})
    done = try_dvc(tmp_path, "push", path=path, keys=s3.keys | keys)
    assert done.returncode != 0
    assert said in done.stderr
    assert s3.keys["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    right = boto3.client(
        "s3",
        endpoint_url=s3.settings["endpointurl"],
        region_name="us-east-1",
        aws_access_key_id=s3.keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3.keys["AWS_SECRET_ACCESS_KEY"],
    )
    assert not right.list_objects_v2(Bucket="team", Prefix=tmp_path.name).get("Contents")
