"""MLflow as ``docker/compose.yaml`` starts it, on a real PostgreSQL and an S3 server, over real HTTP."""

import base64
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pg8000.dbapi
import psutil
import pytest
import requests
from moto.server import ThreadedMotoServer

from tests.docker.compose_file import ROOT, read_compose

pytestmark = pytest.mark.slow

SECRETS = {
    "POSTGRES_PASSWORD": "database-p%40ss/word",  # what an address and a settings file could stumble over
    "S3_PASSWORD": "store-password",
    "MLFLOW_ADMIN_PASSWORD": "administrator-password",
    "MLFLOW_SECRET_KEY": "session-key",
    "MLFLOW_HOSTS": "mlflow.example.org,mlflow.example.org:5000",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Team:
    """A running server.

    Attributes:
        url: Of MLflow.
        store: Of the S3 server.
        database: Port of PostgreSQL.
        folder: Where its logs are.
    """

    url: str
    store: str
    database: int
    folder: Path

    def ask(self, path: str, *, host: str | None = None, password: str | None = None) -> int:
        """Return the status that the server answers a GET with."""
        request = urllib.request.Request(self.url + path)
        if host:
            request.add_header("Host", host)
        if password:
            token = base64.b64encode(f"admin:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    """A PostgreSQL as the image `postgres` sets it up: user and database `mlflow`, passwords always asked for."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if not shutil.which("postgres") else [Path()]
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    programs, port = found[-1], free_port()
    folder = Path(tempfile.mkdtemp(prefix="pointloom-postgres-"))
    as_user: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    (folder / "password").write_text(SECRETS["POSTGRES_PASSWORD"])
    (folder / "password").chmod(0o644)
    data = str(folder / "data")
    make = [programs / "initdb", "-D", data, "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={folder}/password"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_user)
    command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **as_user)
    try:
        wait_for(lambda: connect(port, "postgres") is not None, folder / "log", server, seconds=60)
        connection = connect(port, "postgres")
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE mlflow")
        connection.close()
        yield port
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(30)
        shutil.rmtree(folder)


def connect(port: int, name: str) -> Any:
    try:
        return pg8000.dbapi.connect(
            "mlflow", host="127.0.0.1", port=port, database=name, password=SECRETS["POSTGRES_PASSWORD"]
        )
    except (pg8000.dbapi.InterfaceError, pg8000.dbapi.DatabaseError):
        return None


def wait_for(condition: Any, log: Path, process: subprocess.Popen[bytes], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def team(database: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The services of the compose file in its order, with its commands and variables; only addresses are others."""
    folder = tmp_path_factory.mktemp("mlflow")
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    host, port = store.get_host_and_port()
    team = Team(f"http://localhost:{free_port()}", f"http://{host}:{port}", database, folder)
    services = read_compose(SECRETS)["services"]

    def here(text: str) -> str:
        text = text.replace("postgres:5432", f"127.0.0.1:{database}").replace("http://s3:9000", team.store)
        return text.replace("--port=5000", f"--port={team.url.rpartition(':')[2]}").replace("0.0.0.0", "127.0.0.1")

    def start(name: str, log: Path) -> subprocess.Popen[bytes]:
        service = services[name]
        command = [here(word).replace("/etc/mlflow/", f"{ROOT}/docker/mlflow/") for word in service["command"]]
        variables = {key: here(value) for key, value in service["environment"].items()}
        (folder / "auth.ini").write_text(here((ROOT / "docker" / "mlflow" / "auth.ini").read_text()))
        programs = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder), "NO_PROXY": "*"}
        fixed = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("w") as output:
            environment = {**programs, **fixed, **variables}
            return subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    for _ in range(2):  # the second time, the bucket is there already
        assert start("bucket", folder / "bucket.log").wait(120) == 0, (folder / "bucket.log").read_text()
    server = start("mlflow", folder / "server.log")
    try:
        wait_for(lambda: answers(f"{team.url}/health"), folder / "server.log", server, seconds=240)
        yield team
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have failed by itself
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
        store.stop()


def test_nobody_gets_in_without_the_password(team: Team) -> None:
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert team.ask(path) == 401
    assert team.ask(path, password="wrong") == 401
    assert team.ask(path, password=SECRETS["MLFLOW_ADMIN_PASSWORD"]) == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("mlflow:5000", 200), ("mlflow.example.org", 200), ("mlflow.example.org:5000", 200), ("evil.example", 403)],
)
def test_the_server_answers_to_its_own_names_only(team: Team, host: str, status: int) -> None:
    path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert team.ask(path, host=host, password=SECRETS["MLFLOW_ADMIN_PASSWORD"]) == status
    assert team.ask("/health", host=host) == 200


def test_a_stage_of_a_plain_user_records_its_run_in_the_database_and_its_files_in_the_store(
    team: Team, tmp_path: Path
) -> None:
    """As user ``pipeline``, made by the administrator as the manual says, with no permission but to make things."""
    user = {"username": "pipeline", "password": "password-of-the-pods"}
    login = ("admin", SECRETS["MLFLOW_ADMIN_PASSWORD"])
    requests.post(f"{team.url}/api/2.0/mlflow/users/create", json=user, auth=login, timeout=60).raise_for_status()
    params = "{source: synthetic, num_objects: 12, unlabelled_synthetic: 0, num_points: 64, seed: 0, up: auto, "
    params += "test_fraction: 0.25, train_list: null, test_list: null, max_failure_ratio: 0.5, num_workers: 1}"
    (tmp_path / "params.yaml").write_text(f"prepare: {params}\n")
    (tmp_path / "raw").mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_"))},
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": team.url,
        "MLFLOW_EXPERIMENT_NAME": "shared",
        "MLFLOW_TRACKING_USERNAME": user["username"],
        "MLFLOW_TRACKING_PASSWORD": user["password"],
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",  # machines that run tests are busy
    }
    command = [sys.executable, "-m", "pointloom.cli", "prepare", "--params", "params.yaml:prepare", "--source", "raw"]
    command += ["--dataset", "objects", "--metrics", "metrics.json", "--state", "state"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    deadline = time.monotonic() + 120  # the sender goes on after a stage that did not want to wait for it
    while not (rows := finished_runs(team)):
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)
    [(run_id, artifacts, objects_counted)] = rows
    assert objects_counted == 12
    assert artifacts.startswith("mlflow-artifacts:/")
    keys = {"aws_access_key_id": "mlflow", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    objects = boto3.client("s3", endpoint_url=team.store, **keys).list_objects_v2(Bucket="mlflow")["Contents"]
    assert {Path(item["Key"]).name for item in objects if run_id in item["Key"]} >= {"dataset.json", "failures.jsonl"}


def test_passwords_are_in_no_log_and_no_list_of_processes(team: Team) -> None:
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert any(team.url.rpartition(":")[2] in " ".join(words) for words in running), "the server is among them"
    logs = [file.read_text(errors="replace") for file in team.folder.glob("*.log")]
    for name in ("POSTGRES_PASSWORD", "S3_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY"):
        for text in (SECRETS[name], quote(SECRETS[name], safe="")):
            assert not [words for words in running if any(text in word for word in words)], name
            assert not [log for log in logs if text in log], name


def finished_runs(team: Team) -> list[tuple[str, str, float]]:
    """Return id, place of the artefacts and number of objects of every finished run in the database."""
    with contextlib.closing(connect(team.database, "mlflow")) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT runs.run_uuid, artifact_uri, value FROM runs JOIN metrics ON metrics.run_uuid = runs.run_uuid "
            "WHERE runs.status = 'FINISHED' AND metrics.key LIKE '%objects'"
        )
        return [(run_id, artifacts, value) for run_id, artifacts, value in cursor.fetchall()]
