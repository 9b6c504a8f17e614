"""Several processes train as one: the same losses from the same global batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pointloom.errors import BackendError, ParamsError
from pointloom.ops.shared_norm import SharedBatchNorm, share_batch_statistics
from pointloom.train import distributed
from pointloom.train.device import best_device
from pointloom.train.distributed import own_part
from tests.models.scene_views import turned_views
from tests.train.several_processes import point_batch, train

ROOT = Path(__file__).resolve().parents[2]
METHODS = (
    "mae", "m2ae", "m2ae-official", "pqae", "pqae-unused", "align", "distill", "distill-points", "joint",
    "mm3dscene", "mm3dscene-batch", "msm", "msm-shared", "msc",
)  # fmt: skip
TOLERANCE = 2e-4
"""Relative, after six steps: sums of float32 in another order, and AdamW's amplification of gradients near zero."""


def torchrun(folder: Path, *cases: str, processes: int = 2) -> dict[str, list[dict[str, float]]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--module"]
    done = subprocess.run(
        [*command, "tests.train.several_processes", str(folder), *cases], env=environment, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {case: json.loads((folder / f"{case}.json").read_text()) for case in cases}


def pair(folder: Path, case: str) -> list[dict[str, float]]:
    """Train in two processes without torchrun, which only starts them: that saves its own start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.several_processes", str(folder), case], cwd=ROOT, text=True,
            env={**os.environ, **place, "PYTHONPATH": str(ROOT), "RANK": str(rank)}, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return list(json.loads((folder / f"{case}.json").read_text()))


def assert_same(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == set(theirs)
        for name in set(ours) - {"cpu_s"}:
            assert ours[name] == pytest.approx(theirs[name], rel=TOLERANCE), name


@pytest.mark.slow
def test_two_processes_share_statistics_and_gradients(tmp_path: Path) -> None:
    assert_same(pair(tmp_path, "normed"), train("normed"))


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, float]]]:
    return torchrun(tmp_path_factory.mktemp("curves"), *METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_same_losses_in_two_processes(
    method: str, curves: dict[str, list[dict[str, float]]]
) -> None:
    assert_same(curves[method], train(method))


def test_part_of_pairs_of_views_has_both_views_of_its_scenes() -> None:
    views = turned_views((3, 4, 2))
    parts = [views.part(0, 1), views.part(1, 3)]
    assert [len(views), *map(len, parts)] == [3, 1, 2]
    assert [part.scenes.offset.tolist() for part in parts] == [[3, 6], [4, 8, 10, 12]]
    assert [part.scenes.row.tolist() for part in parts] == [[0, 0], [1, 1, 2, 2]]
    assert torch.equal(torch.cat([part.place for part in parts]), views.place)
    assert torch.equal(torch.cat([part.scenes.coord for part in parts]), views.scenes.coord)


def test_parts_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = point_batch()
    monkeypatch.setattr(distributed, "num_processes", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed.dist, "get_rank", lambda rank=rank: rank)
        parts.append(own_part(batch))
    assert [len(part) for part in parts] == [1, 2, 2]  # type: ignore[arg-type]
    assert torch.equal(torch.cat([part.coord for part in parts]), batch.coord)  # type: ignore[attr-defined]
    monkeypatch.setattr(distributed, "num_processes", lambda: 6)
    with pytest.raises(ParamsError, match="a batch of 5 cannot be divided among 6 processes; raise batch_size"):
        own_part(batch)


def test_shared_normalisation_alone_is_the_plain_one() -> None:
    plain, values = nn.Sequential(nn.BatchNorm1d(4)), torch.randn(6, 4, 3)
    shared = nn.Sequential(nn.BatchNorm1d(4))
    share_batch_statistics(shared)
    assert isinstance(shared[0], SharedBatchNorm)
    assert torch.equal(plain(values), shared(values))
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in shared.state_dict().items())


def test_gpu_that_was_asked_for_and_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == torch.device("cpu")
    monkeypatch.setenv("POINTLOOM_DEVICE", "cuda")
    with pytest.raises(BackendError, match=r"POINTLOOM_DEVICE=cuda asks for a GPU, and torch .* sees none: look at"):
        best_device()
    monkeypatch.setenv("POINTLOOM_DEVICE", "gpu")
    with pytest.raises(BackendError, match="expected cuda, cpu"):
        best_device()


def test_more_processes_than_gpus_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert best_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(BackendError, match="process 3 of this machine has no GPU: torch sees 2"):
        best_device()
