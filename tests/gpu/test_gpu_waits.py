"""Steps never make the host wait for the device, its copy of the batch included; only CUDA can tell."""

import pytest
import torch

from tests.gpu.test_gpu_steps import METHODS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("name", list(METHODS))
def test_a_step_never_waits_for_the_device(
    name: str, backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type != "cuda":
        pytest.skip("only CUDA tells when it is waited for")
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton is not installed (extra gpu)")
    monkeypatch.setenv("POINTLOOM_OPS_BACKEND", backend)
    build, draw = METHODS[name]
    method, batch = build().train().to(device), draw()
    method(batch.to(device))["loss"].backward()  # kernels are compiled now
    torch.cuda.set_sync_debug_mode("error")
    try:
        method(batch.to(device))["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
