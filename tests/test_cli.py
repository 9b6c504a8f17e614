"""What a user sees: help, exit codes, one clear message instead of a trace."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointloom.cli import KEPT, cli, describe_environment_error
from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.read_params import read_params
from pointloom.stages.signature import read_signature
from pointloom.ui import choose_port
from pointloom.workspace import template

ROOT = Path(__file__).resolve().parents[1]


def pointloom(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pointloom.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_how_to_start() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    for name in (*STAGES, "init", "run", "ui", "doctor", "encode", "search", "convert"):
        assert f"\n  {name} " in text
    assert "pointloom init my3d" in text


@pytest.mark.parametrize("stage", STAGES)
def test_stage_help_explains_paths_and_parameters(stage: str) -> None:
    text = CliRunner().invoke(cli, [stage, "--help"]).output
    assert f"params.yaml:{stage}" in text
    assert f"Parameters (section '{stage}' of params.yaml)" in text
    assert "--metrics PATH" in text


def test_start_up_imports_nothing_heavy() -> None:
    code = (
        "import sys, pointloom.cli\n"
        "heavy = {'torch', 'numpy', 'mlflow', 'trimesh', 'h5py', 'sklearn', 'numba', 'scipy', 'dvc', 'pandas'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported at start-up: {done.stderr}"


def test_help_takes_less_than_half_a_second_of_cpu(tmp_path: Path) -> None:
    before = os.times()
    assert pointloom("--help", cwd=tmp_path).returncode == 0
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    assert cpu < 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("params.yaml:prepare", "params.yaml: no such file"),
        ("{", "not a JSON object"),
        ('{"numpoints": 3}', "numpoints: unknown key; did you mean 'num_points'?"),
        ("here.yaml:prepar", "no section 'prepar'; it has prepare; did you mean 'prepare'?"),
        ("here.yaml:prepare.x", "no section 'prepare.x'; section 'prepare' has a"),
    ],
)
def test_wrong_params_are_one_message_and_exit_code_2(tmp_path: Path, params: str, message: str) -> None:
    (tmp_path / "here.yaml").write_text("prepare: {a: 1}\n")
    paths = ["--source", "s", "--dataset", "d", "--metrics", "m"]
    done = pointloom("prepare", "--params", params, *paths, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_mistyped_command_and_missing_option_are_usage_errors(tmp_path: Path) -> None:
    assert pointloom("prepre", cwd=tmp_path).returncode == 2
    done = pointloom("prepare", "--params", "{}", cwd=tmp_path)
    assert (done.returncode, "Missing option '--source'" in done.stderr) == (2, True), done.stderr


def test_run_outside_a_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    done = pointloom("run", cwd=tmp_path)
    assert done.returncode == 2
    assert "pointloom init" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_end_with_their_code_and_a_word_of_comfort(tmp_path: Path, number: signal.Signals, code: int) -> None:
    program = (
        "import time, pointloom.cli as c\n"
        "c.cli.callback = lambda **_: (print('up', flush=True), time.sleep(60))\n"
        "c.main()"
    )
    command = [sys.executable, "-c", program, "doctor"]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    time.sleep(0.1)
    child.send_signal(number)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == code
    assert KEPT in errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError("Can't write data (file write failed: errno = 28, error message = '...')"), "disk is full"),
        (RuntimeError("write failed: No space left on device"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "no permission"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (OSError(errno.EFBIG, "File too large"), "larger than this machine allows"),
    ],
)
def test_machine_errors_are_explained(error: Exception, message: str) -> None:
    outer = ValueError("a library wrapped it")
    outer.__cause__ = error
    assert message in (describe_environment_error(outer) or "")
    assert describe_environment_error(ValueError("a bug")) is None


@pytest.mark.parametrize("section", ["pretrain", "finetune", "probe"])
def test_a_section_of_entries_names_them(tmp_path: Path, section: str) -> None:
    (tmp_path / "params.yaml").write_text(template("profiles/pretrain/smoke.yaml"))
    with pytest.raises(ParamsError, match=rf"section '{section}': expected parameters, got the entries .*SECTION\.\w+"):
        read_params(read_signature(section, STAGES[section]).params, f"{tmp_path}/params.yaml:{section}")


def test_a_file_in_the_place_of_a_folder_is_explained_but_not_inside_of_another_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as error:
        (tmp_path / "file" / "deep").mkdir(parents=True)
    assert "Give another path." in (describe_environment_error(error.value) or "")
    bug = ValueError("a bug")
    bug.__context__ = error.value
    assert describe_environment_error(bug) is None


def test_asked_port_in_use_is_an_error_with_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=rf"port {port} is in use; free is for example --port \d+"):
            choose_port(port)
    assert choose_port(port) == port


def test_doctor_looks_at_everything_and_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("source: nowhere\ntracking_uri: http://127.0.0.1:9\n")
    broken = pointloom("doctor", "--workspace", str(tmp_path), cwd=tmp_path)
    assert " bad  parameters" in broken.stdout
    (tmp_path / "params.yaml").write_text(template("profiles/multimodal/smoke.yaml"))
    done = pointloom("doctor", "--workspace", str(tmp_path), cwd=tmp_path)
    for word in ("torch", "extra workspace", "GPU", "allocator", "parameters", "disk", "does not answer"):
        assert word in done.stdout
    assert " bad  raw shapes" in done.stdout
    assert done.returncode == 1


def test_stage_params_may_be_json(tmp_path: Path) -> None:
    params = {"source": "synthetic", "num_objects": 0, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0}
    params |= {"test_fraction": 0.2, "up": "auto", "max_failure_ratio": 0.1}
    paths = ["--source", ".", "--dataset", "d", "--metrics", "m.json"]
    done = pointloom("prepare", "--params", json.dumps(params), *paths, cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing to prepare" in done.stderr
