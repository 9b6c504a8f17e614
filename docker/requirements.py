"""Print one group of the project's requirements, so that a layer of libraries changes only when they do.

python docker/requirements.py core | render | torch | multimodal   (reads pyproject.toml of the current folder)
"""

import re
import sys
import tomllib
from pathlib import Path

RENDERING = {"moderngl", "embreex"}
GROUPS = ("core", "render", "torch", "multimodal")


def requirements(pyproject: Path, group: str) -> list[str]:
    """Return the requirements of a group; the four together are the package's own and its extra ``multimodal``."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    own, extra = project["dependencies"], project["optional-dependencies"]["multimodal"]
    members = {
        "core": [line for line in own if _name(line) != "torch"],
        "render": [line for line in extra if _name(line) in RENDERING],
        "torch": [line for line in own if _name(line) == "torch"],
        "multimodal": [line for line in extra if _name(line) not in RENDERING],
    }
    return members[group]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in GROUPS:
        sys.exit(f"usage: python docker/requirements.py {' | '.join(GROUPS)}")
    print("\n".join(requirements(Path("pyproject.toml"), sys.argv[1])))
