"""What the sections of ``params.yaml`` say about each other: which entries there are, and who names whom."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.read_params import did_you_mean, read_yaml, validate
from pointloom.stages.scene_sections import check_scene_sections
from pointloom.stages.signature import read_signature

ENTRY_STAGES = ("render", "caption", "embed", "pretrain", "align", "distill", "finetune", "probe")
"""Stages that run once per entry of their section."""

MULTIMODAL_STAGES = ("render", "caption", "embed", "align", "distill")
"""Stages of the multimodal pipeline alone."""

OPTIONAL_STAGES = (*MULTIMODAL_STAGES, "finetune")
"""Stages that an empty section, ``{}``, leaves out."""

ENCODER_STAGES = ("pretrain", "align", "distill")
"""Stages whose entries become folders of ``models``."""

REFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "caption": {"views": ("render",)},
    "embed": {"views": ("render",), "captions": ("caption",)},
    "align": {"features": ("embed",)},
    "distill": {"teacher": ("align",)},
    "finetune": {"encoder": ENCODER_STAGES},
    "probe": {"encoder": ENCODER_STAGES},
}
"""Stage -> its parameters that name an entry -> the stages whose entry it may be."""


def check_params(folder: Path) -> dict[str, Any]:
    """Validate every section of ``params.yaml`` and the references between them before anything starts.

    Returns:
        The sections, with an empty one for every stage that the workspace's own ``dvc.yaml`` does not have: workspaces
        from before a stage existed stay usable.

    Raises:
        ParamsError: The first section with a problem.
    """
    file = folder / "params.yaml"
    params = read_yaml(file)
    for section in params:
        if section not in STAGES:
            raise ParamsError(f"{file}: unknown section {section!r}{did_you_mean(section, list(STAGES))}")
    graph = folder / "dvc.yaml"
    present = read_yaml(graph).get("stages", {}) if graph.is_file() else STAGES
    sections = {stage: params.get(stage, None if stage in present else {}) for stage in STAGES}
    for stage in STAGES:
        if stage in params or stage in present:
            _check_section(file, stage, sections)
    _check_names(file, sections)
    check_scene_sections(file, sections)
    return sections


def _check_section(file: Path, stage: str, sections: dict[str, Any]) -> None:
    if sections[stage] is None:
        empty = f" (`{stage}: {{}}` leaves the stage out)" if stage in OPTIONAL_STAGES else ""
        raise ParamsError(f"{file}: section {stage!r} is missing or empty{empty}")
    models = read_signature(stage, STAGES[stage]).params
    for section, values in _entries(file, stage, sections[stage]):
        validate(models, values, where=f"{file}, section {section!r}")
        for key, targets in REFERENCES.get(stage, {}).items():
            known = [entry for target in targets for entry in sections.get(target) or {}]
            if (name := values[key]) not in known:
                raise ParamsError(
                    f"{file}, section {section!r}: {key} {name!r} is no entry of {' or '.join(map(repr, targets))} "
                    f"({', '.join(known) or 'none'}){did_you_mean(name, known)}"
                )


def _entries(file: Path, stage: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and values of everything in a section that is validated on its own."""
    if stage not in ENTRY_STAGES:
        yield stage, values
        return
    if not isinstance(values, dict) or not (values or stage in OPTIONAL_STAGES):
        raise ParamsError(f"{file}, section {stage!r}: expected one entry per {stage}, got {values!r}")
    for name, entry in values.items():
        yield f"{stage}.{name}", entry


def _check_names(file: Path, sections: dict[str, Any]) -> None:
    """Refuse two encoders of one name: each is a folder of ``models``."""
    owner: dict[str, str] = {}
    for stage in ENCODER_STAGES:
        for name in sections.get(stage) or {}:
            if name in owner:
                raise ParamsError(
                    f"{file}, section '{stage}.{name}': {owner[name]} has an entry {name!r} too and both would write "
                    f"models/{name}; rename one"
                )
            owner[name] = stage
