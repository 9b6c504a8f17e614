"""GPU kernels against the torch reference: in Triton's interpreter on any machine, on the device where there is one."""

import os
import subprocess
import sys

import pytest
import torch

from pointloom.errors import BackendError
from pointloom.ops import choose_backend

COMPARISON = """
import sys
import torch
from pointloom import ops

device = sys.argv[1]
torch.manual_seed(0)
offset, query_offset, some = torch.tensor([1500, 1520, 1620]), torch.tensor([3, 4, 9]), torch.tensor([9, 20, 2])
dense, query = torch.randn(2, 1100, 3, device=device), torch.randn(2, 4, 3, device=device)
dense[:, 700:1000] = dense[:, 100:400]
line = torch.arange(1100, device=device).flip(0)[None, :, None] * torch.tensor([0.5, 0.0, -0.25], device=device)
same, alone = torch.ones(1, 5, 3, device=device), torch.ones(2, 1, 3, device=device)
ragged, asked = torch.randn(1620, 3, device=device), torch.randn(9, 3, device=device)
calls = {
    "farthest": lambda b: ops.farthest_point_sampling(dense, 12, start=3, skip_near_origin=0.5, backend=b),
    "farthest, ragged": lambda b: ops.farthest_point_sampling_ragged(ragged, offset, some, backend=b),
    "farthest, repeated": lambda b: ops.farthest_point_sampling(same, 4, backend=b),
    "farthest, in a line": lambda b: ops.farthest_point_sampling(line, 9, start=700, backend=b),
    "farthest, one point": lambda b: ops.farthest_point_sampling(alone, 1, backend=b),
    "farthest, all near the origin": lambda b: ops.farthest_point_sampling(same, 5, skip_near_origin=9.0, backend=b),
    "neighbours, repeated": lambda b: ops.knn(same, same, 5, backend=b),
    "neighbours, in a line": lambda b: ops.knn(line[:, ::400] + 0.01, line, 4, backend=b),
    "ball, in a line": lambda b: ops.ball_query(line[:, ::400], line, radius=1.2, num=4, backend=b),
    "ball, one point": lambda b: ops.ball_query(query, alone, radius=1.2, num=4, backend=b),
    "neighbours": lambda b: ops.knn(query, dense, 6, backend=b),
    "all neighbours": lambda b: ops.knn(query, dense[:, :5], 5, backend=b),
    "neighbours, ragged": lambda b: ops.knn_ragged(asked, query_offset, ragged, offset, 5, backend=b),
    "ball": lambda b: ops.ball_query(query, dense, radius=0.6, num=7, backend=b),
    "empty ball": lambda b: ops.ball_query(query + 90, dense, radius=0.6, num=7, backend=b),
    "ball, ragged": lambda b: ops.ball_query_ragged(asked, query_offset, ragged, offset, radius=0.6, num=7, backend=b),
}
for name, call in calls.items():
    assert torch.equal(call("triton"), call("torch")), name
print("equal:", len(calls))
"""


def compare(device: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", COMPARISON, device]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_in_the_interpreter_equal_the_reference() -> None:
    pytest.importorskip("triton", reason="Triton is not installed (extra gpu)")
    assert "equal: 16" in compare("cpu", {"TRITON_INTERPRET": "1"})


@pytest.mark.gpu
def test_kernels_on_the_device_equal_the_reference() -> None:
    pytest.importorskip("triton", reason="Triton is not installed (extra gpu)")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert "equal: 16" in compare("cuda", {})


def test_triton_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(BackendError, match="works on CUDA tensors, got cpu"):
        choose_backend(torch.device("cpu"), "triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendError, match=r'pip install "pointloom\[gpu\]"'):
        choose_backend(torch.device("cuda"), "triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BackendError, match="finds no C compiler: install gcc and Python's headers"):
        choose_backend(torch.device("cuda"), "triton")
    monkeypatch.setenv("CC", "cc")
    assert choose_backend(torch.device("cuda"), "triton") == "triton"
