"""Freed memory stays in the process, which page faults show."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from pointloom.train.allocator import keep_freed_memory

def step():
    return sum(float(tensor[0]) for tensor in [torch.ones(10_000_000) for _ in range(2)])

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_large_tensors_cost_no_page_faults_after_the_first_steps() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", PROGRAM, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout)

    assert faults("keep") * 10 < faults("default")
