"""Stages: typed functions from paths to paths, each one a sub-command, a DVC stage and a pipeline component."""

from collections.abc import Callable

from pointloom.stages.caption import caption
from pointloom.stages.finetune import finetune
from pointloom.stages.prepare import prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.probe import probe
from pointloom.stages.report import report

STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "caption": caption,
    "pretrain": pretrain,
    "finetune": finetune,
    "probe": probe,
    "report": report,
}
"""Sub-command and section of ``params.yaml`` -> stage, in the order of the pipeline."""
