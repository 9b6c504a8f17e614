"""``docker/compose.yaml`` as Compose reads it: variables filled in, errors for those that must be set."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")


def read_compose(values: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with ``${NAME:?message}`` and ``${NAME:-default}`` replaced."""

    def fill(found: re.Match[str]) -> str:
        value = values.get(found["name"], "")
        if value:
            return value
        if found["kind"] == "?":
            raise KeyError(f"{found['name']}: {found['text']}")
        return found["text"] or ""

    content: dict[str, Any] = yaml.safe_load(VARIABLE.sub(fill, COMPOSE.read_text(encoding="utf-8")))
    return content
