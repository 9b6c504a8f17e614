"""Secrets stay where they are, and files that others made cannot read or run anything."""

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from docker.utils.build import exclude_paths

from pointloom.data.quarantine import RejectedError
from pointloom.data.side_files import SideFiles
from pointloom.data.surfaces import load_surface
from pointloom.errors import PointloomError
from pointloom.teachers.clip import load_clip
from pointloom.teachers.dino import load_dino
from pointloom.train.spool import tracking_target
from tests.teachers.tiny import write_dino_folder

ROOT = Path(__file__).resolve().parents[1]
SECRET = "pl4nted-s3cret"
PREPARE = {
    "source": "synthetic", "num_objects": 4, "unlabelled_synthetic": 0, "num_points": 32, "seed": 0, "up": "auto",
    "test_fraction": 0.25, "train_list": None, "test_list": None, "max_failure_ratio": 0.5, "num_workers": 1,
}  # fmt: skip


class Trap:
    """Makes a folder when it is unpickled by somebody who trusts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("reference", [
    "../../secret.mtl", "../../../../../../../../../../{secret}", "{secret}", "file://{secret}",
    "%2e%2e/%2e%2e/secret.mtl", "..\\..\\secret.mtl", "link.mtl", "folder/secret.mtl", "C:\\secret.mtl", "//{secret}",
])  # fmt: skip
def test_references_of_meshes_read_nothing_outside_of_the_source(tmp_path: Path, reference: str) -> None:
    inside = tmp_path / "source" / "shapes"
    inside.mkdir(parents=True)
    secret = tmp_path / "secret.mtl"
    secret.write_text(SECRET)
    (inside / "link.mtl").symlink_to(secret)
    (inside / "folder").symlink_to(tmp_path)
    side = SideFiles(inside / "a.obj", root=tmp_path / "source")
    assert side.find(reference.format(secret=secret)) is None
    with pytest.raises(FileNotFoundError):
        side.get(reference.format(secret=secret))


@pytest.mark.parametrize("uri", ["../secret.bin", "{secret}", "file://{secret}", "link.bin"])
def test_buffers_of_gltf_files_are_not_read_from_elsewhere(tmp_path: Path, uri: str) -> None:
    (tmp_path / "source").mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(36))
    (tmp_path / "source/link.bin").symlink_to(secret)
    content = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "scene": 0, "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "buffers": [{"uri": uri.format(secret=secret), "byteLength": 36}],
    }  # fmt: skip
    (tmp_path / "source/a.gltf").write_text(json.dumps(content))
    with pytest.raises(RejectedError) as caught:
        load_surface(tmp_path / "source/a.gltf", root=tmp_path / "source")
    assert caught.value.reason == "missing_file", "36 zeros from elsewhere would have been three equal points"


def test_weights_of_teachers_run_no_code(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    folder = tmp_path / "dino"
    write_dino_folder(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Trap(trap)}, folder / "pytorch_model.bin")
    device = torch.device("cpu")
    with pytest.raises(PointloomError):
        load_dino(str(folder), device=device)
    for name, options in (("clip.pt", {"quick_gelu": None}), ("ViT-B-32.bin", {"architecture": "ViT-B-32"})):
        torch.save({"state_dict": Trap(trap)}, tmp_path / name)
        with pytest.raises(PointloomError):
            load_clip(str(tmp_path / name), device=device, **options)
        (tmp_path / name).write_bytes(pickle.dumps(Trap(trap), protocol=2))
        with pytest.raises(PointloomError):
            load_clip(str(tmp_path / name), device=device, **options)
    assert not trap.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)  # the trap works where files are trusted
    assert trap.exists()


@contextmanager
def server_that_refuses() -> Iterator[tuple[str, list[str]]]:
    """Answer everything with an error that repeats the request; remember the logins that were tried."""
    logins: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization", ""))
            self.send_response(500)
            self.end_headers()
            self.wfile.write(f"{self.headers}".encode())

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}", logins
        running.shutdown()


def test_login_of_a_server_is_used_and_neither_printed_nor_written(tmp_path: Path) -> None:
    login = base64.b64encode(f"ann:{SECRET}".encode()).decode()
    (tmp_path / "raw").mkdir()
    with server_that_refuses() as (place, logins):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {
            "MLFLOW_TRACKING_URI": f"http://ann:{SECRET}@{place}", "AWS_SECRET_ACCESS_KEY": SECRET,
            "KF_PIPELINES_TOKEN": SECRET, "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, "-m", "pointloom.cli", "prepare", "--params", json.dumps(PREPARE), "--source", "raw"]
        command += ["--dataset", "objects", "--metrics", "metrics.json"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"has not taken everything" in done.stderr
    assert f"Basic {login}" in logins
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any("tracking" in path.parts for path in written), "events wait to be sent"
    for what, content in {"output": done.stdout + done.stderr, **written}.items():
        assert SECRET.encode() not in content, what
        assert login.encode() not in content, what


def test_address_of_a_server_is_kept_without_its_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:p%40ss@example.org/mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    target = tracking_target(tmp_path)
    assert target is not None
    assert target.uri == "https://example.org/mlflow"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ann", "p@ss")


def test_nothing_private_is_sent_to_the_builder_of_images(tmp_path: Path) -> None:
    """Docker's own rules, on the tree of this repository with secrets planted in all places where people keep them."""
    planted = ["docker/.env", ".env", "id_rsa", "mlflow.db", "data/objects/x.h5", "state/tracking/x.jsonl", "token.txt"]
    planted += [".git/config", ".dvc/config.local", "runs/rates.json", "tests/secret.txt", "pipelines/mine.yaml"]
    wanted = ["pointloom/cli.py", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "docker/requirements.py"]
    wanted += ["docker/mlflow/start.py", "docker/mlflow/auth.ini"]
    for name in [*planted, *wanted, "pointloom/__pycache__/cli.cpython-311.pyc"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SECRET if name in planted else "")
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [rule for rule in rules if rule and not rule.startswith("#")]
    sent = {name for name in exclude_paths(str(tmp_path), patterns) if (tmp_path / name).is_file()}
    assert sent == set(wanted)
