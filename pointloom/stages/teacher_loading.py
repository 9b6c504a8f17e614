"""How stage ``embed`` loads its teachers and names what they make."""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from pointloom.stages.embed import EmbedParams, NetworkParams, TextParams
from pointloom.teachers import IMAGE_TEACHERS, ImageTower

STORED = "unit length, float16"
_OPTIONS = {"weights", "architecture", "quick_gelu"}


class Loader:
    """Load networks once, however many teachers use them."""

    def __init__(self, params: EmbedParams, device: torch.device) -> None:
        self.device = device
        self._common = {"device": device, "precision": params.precision, "batch_size": params.batch_size}
        self._loaded: dict[str, ImageTower] = {}

    def network(self, teacher: str, params: NetworkParams | TextParams) -> ImageTower:
        """Return a network, loaded at its first use."""
        options = params.model_dump(include=_OPTIONS)
        key = json.dumps([teacher, options], sort_keys=True)
        if key not in self._loaded:
            self._loaded[key] = IMAGE_TEACHERS[teacher](**options, **self._common)
        return self._loaded[key]


def cache_key(identity: Mapping[str, Any], **inputs: Any) -> str:
    """Return the SHA-256 over everything that decides a teacher's numbers, and how they are stored."""
    content = json.dumps({"teacher": identity, "stored": STORED, **inputs}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def progress_interval() -> float:
    """Return the seconds between two updates of a progress bar: often for a person, rarely for a log."""
    return 0.2 if sys.stderr.isatty() else 10.0
