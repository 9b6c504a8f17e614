"""Stages: typed functions from paths to paths, each one a sub-command, a DVC stage and a pipeline component."""

from collections.abc import Callable

from pointloom.stages.align import align
from pointloom.stages.caption import caption
from pointloom.stages.distill import distill
from pointloom.stages.embed import embed
from pointloom.stages.finetune import finetune
from pointloom.stages.prepare import prepare
from pointloom.stages.pretrain import pretrain
from pointloom.stages.probe import probe
from pointloom.stages.render import render
from pointloom.stages.report import report

STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "render": render,
    "caption": caption,
    "embed": embed,
    "pretrain": pretrain,
    "align": align,
    "distill": distill,
    "finetune": finetune,
    "probe": probe,
    "report": report,
}
"""Sub-command and section of ``params.yaml`` -> stage, in the order of the pipeline."""
