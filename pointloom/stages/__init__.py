"""Stages: typed functions from paths to paths, each one a sub-command, a DVC stage and a pipeline component."""

from collections.abc import Callable

STAGES: dict[str, Callable[..., None]] = {}
"""Sub-command and section of ``params.yaml`` -> stage, in the order of the pipeline."""
