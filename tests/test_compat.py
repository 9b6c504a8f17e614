import subprocess
import sys


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_torchvision_and_the_libraries_on_it_import_after_a_first_failure() -> None:
    done = _run(
        "import contextlib\n"
        "with contextlib.suppress(RuntimeError):\n"
        "    import torchvision\n"
        "from pointloom._compat import ensure_torchvision\n"
        "first = ensure_torchvision()\n"
        "assert ensure_torchvision() is first\n"
        "from torchvision.transforms import v2\n"
        "from transformers import BlipImageProcessor\n"
        "import open_clip, torch\n"
        "assert v2.Resize(4)(torch.zeros(3, 8, 8)).shape == (3, 4, 4)\n"
    )
    assert done.returncode == 0, done.stderr


def test_another_failure_of_torchvision_is_not_hidden() -> None:
    done = _run(
        "import importlib, pytest\n"
        "from unittest import mock\n"
        "from pointloom._compat import ensure_torchvision\n"
        "with mock.patch.object(importlib, 'import_module', side_effect=RuntimeError('other trouble')):\n"
        "    with pytest.raises(RuntimeError, match='other trouble'):\n"
        "        ensure_torchvision()\n"
    )
    assert done.returncode == 0, done.stderr
