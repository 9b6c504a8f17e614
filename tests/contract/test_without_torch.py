"""The image of prepare, render and report has no torch."""

import subprocess
import sys
from pathlib import Path

import pointloom

ROOT = Path(pointloom.__file__).parent
FOLDERS = ("datasets", "render", "report")
STAGES = ("prepare", "prepare_scenes", "render", "report", "report_ablation")

IMPORT_ALL = """
import importlib, sys
for blocked in ("torch", "torchvision", "transformers", "open_clip"):
    sys.modules[blocked] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_of_preparing_rendering_and_reporting_loads_without_torch() -> None:
    modules = [f"pointloom.{folder}.{path.stem}" for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
    modules += [f"pointloom.stages.{name}" for name in STAGES]
    assert len(modules) > 50
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
