"""Submitting: the real client of Kubeflow Pipelines against a server on this machine."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines import client as client_module
from pipelines import submit
from pointloom._version import __version__
from pointloom.errors import WorkspaceError
from tests.pipelines.conftest import Kubeflow

SMOKE = ["pretrain", "--profile", "smoke", "--image-tag", "t1"]


def call(*words: str) -> Result:
    return CliRunner().invoke(submit.main, [*SMOKE, *words], catch_exceptions=False)


def test_first_submission_uploads_and_starts_the_pipeline(kubeflow: Kubeflow) -> None:
    done = call("--host", kubeflow.url, "--experiment", "mine", "--run-name", "first", "--source", "/data/raw")
    assert done.exit_code == 0, done.output
    assert f"{kubeflow.url}/#/runs/details/r1" in done.output
    assert [found["display_name"] for found in kubeflow.pipelines] == ["pointloom-pretrain"]
    assert kubeflow.versions[0]["display_name"].startswith("t1-")
    (run,) = kubeflow.runs
    assert run["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}
    assert (run["display_name"], run["experiment_id"]) == ("first", "e1")
    parameters = run["runtime_config"]["parameters"]
    assert parameters["source"] == "/data/raw"
    assert json.loads(parameters["pretrain_mae"])["method"] == "mae"


def test_uploaded_package_is_what_a_cluster_can_read(kubeflow: Kubeflow) -> None:
    call("--host", kubeflow.url)
    (body,) = [body for verb, path, _, body in kubeflow.requests if verb == "POST" and path.endswith("/upload_version")]
    package = body[body.index("# PIPELINE DEFINITION") : body.rindex("\r\n--")]
    spec, platform = yaml.safe_load_all(package)
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert parsed.pipeline_info.name == "pointloom-pretrain"
    images = [found["container"]["image"] for found in spec["deploymentSpec"]["executors"].values()]
    assert {image.rpartition(":")[2] for image in images} == {"t1"}
    assert "kubernetes" in platform["platforms"]


def test_second_submission_of_the_same_revision_uploads_nothing(kubeflow: Kubeflow) -> None:
    call("--host", kubeflow.url)
    kubeflow.versions[:0] = [{"pipeline_version_id": f"o{i}", "display_name": f"other {i}"} for i in range(3)]
    before = len(kubeflow.requests)
    assert call("--host", kubeflow.url).exit_code == 0
    later = [path for verb, path, _, _ in kubeflow.requests[before:] if verb == "POST"]
    assert [path for path in later if "upload" in path] == []
    assert kubeflow.runs[1]["pipeline_version_reference"]["pipeline_version_id"] == "v1"
    call("--host", kubeflow.url, "--set", "pretrain.mae.epochs=3")
    assert len({found["display_name"] for found in kubeflow.versions}) == 5  # other values are another version
    assert json.loads(kubeflow.runs[2]["runtime_config"]["parameters"]["pretrain_mae"])["epochs"] == 3


def test_upload_by_somebody_else_at_the_same_time_is_used(kubeflow: Kubeflow) -> None:
    kubeflow.race = True  # 409 for pipeline and version
    done = call("--host", kubeflow.url)
    assert done.exit_code == 0, done.output
    assert kubeflow.runs[0]["pipeline_version_reference"] == {"pipeline_id": "p1", "pipeline_version_id": "v1"}


@pytest.mark.parametrize(("last", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 1)])
def test_wait_says_every_state_and_ends_with_the_runs_outcome(kubeflow: Kubeflow, last: str, code: int) -> None:
    kubeflow.states = ["PENDING", "RUNNING", "RUNNING", last]
    done = call("--host", kubeflow.url, "--wait", "--poll-s", "0.01")
    assert done.exit_code == code
    lines = [line.partition(": ")[2] for line in done.output.splitlines() if line.startswith("pointloom-pretrain: ")]
    assert lines == ["pending", "running", last.lower()]


def test_wait_outlives_a_server_that_is_away_for_a_while(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.5)
    kubeflow.failures = {
        ("GET", "/runs/r1"): [500, 503, 0, 0, 0, 0]
    }  # the client itself tries a silent server four times
    done = call("--host", kubeflow.url, "--wait", "--poll-s", "0.01")
    assert done.exit_code == 0, done.output
    assert "does not answer (500); waiting" in done.output
    assert "does not answer (503); waiting" in done.output
    assert done.output.count("waiting") == 3


def test_wait_ends_when_the_login_has_expired(kubeflow: Kubeflow) -> None:
    kubeflow.failures = {("GET", "/runs/r1"): [401] * 9}
    done = call("--host", kubeflow.url, "--wait", "--poll-s", "0.01")
    assert done.exit_code == 2
    assert "Kubeflow answered 401" in done.output
    assert "refused or has expired" in done.output


@pytest.mark.parametrize(
    ("where", "code", "text"),
    [
        (("GET", "/healthz"), 401, "answered 401 Unauthorized: the login was refused or has expired"),
        (("GET", "/pipelines"), 403, "answered 403 Forbidden: the login may not do this"),
        (("POST", "/pipelines/upload"), 500, "answered 500 Internal Server Error: the server has a problem"),
        (("POST", "/runs"), 500, "answered 500"),
        (("POST", "/runs"), 409, "answered 409"),
        (("GET", "/pipelines/p1/versions"), 404, "check --host"),
    ],
)
def test_refusals_are_one_sentence_and_exit_code_2(
    kubeflow: Kubeflow, where: tuple[str, str], code: int, text: str
) -> None:
    kubeflow.failures = {where: [code] * 9}
    done = call("--host", kubeflow.url)
    assert done.exit_code == 2
    assert text in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("where", [("GET", "/healthz"), ("GET", "/experiments"), ("POST", "/runs")])
def test_server_that_does_not_answer_is_not_waited_for(
    kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, where: tuple[str, str]
) -> None:
    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.3)
    kubeflow.failures = {where: [0] * 9}
    done = call("--host", kubeflow.url)
    assert done.exit_code == 2
    assert "Kubeflow did not answer" in done.output
    assert len(kubeflow.runs) == 0


def test_no_server_at_all_is_said(kubeflow: Kubeflow) -> None:
    done = call("--host", "http://127.0.0.1:1")
    assert (done.exit_code, "Kubeflow did not answer" in done.output) == (2, True)
    assert "no server: give --host" in call().output


@pytest.mark.parametrize("option", ["--token-file", "--service-account-token"])
def test_token_from_a_file_is_sent_and_never_shown(kubeflow: Kubeflow, tmp_path: Path, option: str) -> None:
    (tmp_path / "token").write_text("s3cr3t-token\n")
    kubeflow.token = "Bearer s3cr3t-token"
    done = call("--host", kubeflow.url, option, str(tmp_path / "token"))
    assert done.exit_code == 0, done.output
    kubeflow.token = "Bearer another"
    refused = call("--host", kubeflow.url, option, str(tmp_path / "token"))
    assert refused.exit_code == 2
    assert "s3cr3t" not in done.output + refused.output


def test_token_from_the_environment_and_cookie_from_a_file(
    kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cookie").write_text("oauth2_proxy=abc\n")
    assert call("--host", kubeflow.url, "--cookie-file", str(tmp_path / "cookie")).exit_code == 0
    assert {headers.get("Cookie") for _, _, headers, _ in kubeflow.requests} == {"oauth2_proxy=abc"}
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "from-env")
    kubeflow.token = "Bearer from-env"
    assert call("--host", kubeflow.url).exit_code == 0
    both = call("--host", kubeflow.url, *[f"--{name}={tmp_path / 'cookie'}" for name in ("token-file", "cookie-file")])
    assert "give one of" in both.output
    (tmp_path / "cookie").write_text("\n")
    assert "is empty" in call("--host", kubeflow.url, "--cookie-file", str(tmp_path / "cookie")).output


def test_schedule_makes_a_recurring_run(kubeflow: Kubeflow) -> None:
    done = call("--host", kubeflow.url, "--schedule", "0 0 3 * * *")
    assert done.exit_code == 0, done.output
    assert "/#/recurringrun/details/t1" in done.output
    (timer,) = kubeflow.timers
    assert timer["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert timer["no_catchup"] is True
    assert kubeflow.runs == []
    assert "give one of them" in call("--host", kubeflow.url, "--schedule", "0 0 3 * * *", "--wait").output


def test_only_runs_one_stage_on_given_artifacts(kubeflow: Kubeflow) -> None:
    done = call("--host", kubeflow.url, "--only", "pretrain.mae", "--input", "dataset=s3://bucket/d")
    assert done.exit_code == 0, done.output
    assert kubeflow.pipelines[0]["display_name"] == "pointloom-only-pretrain"
    parameters = kubeflow.runs[0]["runtime_config"]["parameters"]
    assert set(parameters) == {"pretrain_mae", "source", "state"}
    assert "s3://bucket/d" in next(body for _, path, _, body in kubeflow.requests if path.endswith("upload_version"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--only", "pretrian"], "did you mean 'pretrain'"),
        (["--only", "pretrain"], "give one entry: pretrain.scratch, pretrain.pointnet, pretrain.mae"),
        (["--only", "pretrain.m2"], "section 'pretrain' has scratch, pointnet, mae"),
        (["--only", "pretrain.mae"], "needs --input dataset=URI"),
        (["--only", "pretrain.mae", "--input", "dataset=s3://b", "--input", "views=s3://v"], "has no input 'views'"),
        (["--only", "pretrain.mae", "--input", "dataset"], "expected NAME=URI"),
        (["--set", "pretrain.mae.epoch=3"], "did you mean 'epochs'"),
        (["--set", "pretrain.mae.epochs=0"], "epochs: input should be greater than or equal to 1, got 0"),
        (["--set", "pretrain.mae.epochs"], "expected NAME=VALUE"),
    ],
)
def test_wrong_choices_are_explained_before_anything_is_sent(kubeflow: Kubeflow, words: list[str], text: str) -> None:
    done = call("--host", kubeflow.url, *words)
    assert done.exit_code == 2
    assert text in done.output
    assert kubeflow.requests == []


def test_dry_run_sends_nothing(kubeflow: Kubeflow) -> None:
    done = call("--host", kubeflow.url, "--dry-run")
    assert done.exit_code == 0
    assert "name: pointloom-pretrain" in done.output
    assert kubeflow.requests == []


def test_images_are_named_by_a_revision_that_says_when_they_were_edited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What ``make images`` builds is what is submitted; files besides, such as a cluster file, do not matter."""
    (tmp_path / "pointloom").mkdir()
    (tmp_path / "pointloom/_version.py").write_text(f'__version__ = "{__version__}"\n')
    shutil.copy(submit.ROOT / "Makefile", tmp_path)
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    me = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "--quiet"), ("add", "."), (*me, "commit", "--quiet", "--message", "First")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "mine.yaml").write_text("images: {}\n")
    found = submit.revision()
    assert f"pointloom-train:{__version__}-{found} " in planned_images(tmp_path)
    (tmp_path / "pointloom/new.py").write_text("")
    with pytest.raises(WorkspaceError, match=f"files differ from revision {found}"):
        submit.revision()
    planned = planned_images(tmp_path)
    assert f"pointloom-train:{__version__}-{found}-edited " in planned
    assert re.search(rf"REVISION={found}\w*-edited ", planned)


def test_files_of_images_are_those_that_their_builder_is_sent() -> None:
    rules = (submit.ROOT / ".dockerignore").read_text().splitlines()
    assert {rule[1:].partition("/")[0] for rule in rules if rule.startswith("!")} == set(submit.IN_IMAGES)
    assert f"IN_IMAGES := {' '.join(submit.IN_IMAGES)}\n" in (submit.ROOT / "Makefile").read_text()


def planned_images(folder: Path) -> str:
    command = ["make", "--dry-run", "images", "IMAGES=train"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.replace("$image", "train")


def test_raw_shapes_that_are_given_are_prepared(kubeflow: Kubeflow) -> None:
    """All profiles of objects say that shapes are generated; ``pointloom init --data`` changes that, too."""
    for words, source in (
        ([], "folder"), (["--set", "prepare.source=shapenet55"], "shapenet55"), (["--only", "prepare"], "folder"),
    ):  # fmt: skip
        call("--host", kubeflow.url, "--source", "/pointloom/raw", *words)
        assert json.loads(kubeflow.runs[-1]["runtime_config"]["parameters"]["prepare"])["source"] == source
    scenes = ["scenes", "--profile", "smoke", "--image-tag", "t1", "--source", "/pointloom/raw"]
    refused = CliRunner().invoke(submit.main, scenes)
    assert (refused.exit_code, "--set prepare.source=scans" in refused.output) == (2, True)
