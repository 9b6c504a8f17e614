"""What the sections of ``params.yaml`` ask of scenes, and whether the source of ``prepare`` has it."""

from pathlib import Path
from typing import Any, get_args

from pointloom.errors import ParamsError
from pointloom.stages.encoder_names import SceneEncoderName
from pointloom.stages.prepare import SCENE_SOURCES

ALIGNED = {"scannet_votenet": True, "sunrgbd": False}
"""Sources whose axes are along the walls or not, whatever ``prepare.scenes.aligned`` says."""

USUALLY_ALIGNED = ("synthetic_rooms", "s3dis")
"""Sources whose axes are along the walls where it says nothing; of S3DIS, but for the folder of its other version."""


def check_scene_sections(file: Path, sections: dict[str, Any]) -> None:
    """Refuse what the data cannot serve: methods of the other kind, axis-aligned boxes in turned rooms, sentences.

    Args:
        file: ``params.yaml``, for messages.
        sections: Its sections, each valid by itself.

    Raises:
        ParamsError: The first task with a problem.
    """
    prepare = sections.get("prepare") or {}
    source, scenes = prepare.get("source"), prepare.get("scenes") or {}
    for name, entry in (sections.get("pretrain") or {}).items():
        wanted = "scenes" if entry["encoder"] in get_args(SceneEncoderName) else "objects"
        given = "scenes" if source in SCENE_SOURCES else "objects"
        if entry["method"] != "untrained" and wanted != given:
            raise ParamsError(
                f"{file}, section 'pretrain.{name}': method {entry['method']!r} learns from {wanted}, but "
                f"prepare.source {source!r} has {given}; choose a source of {wanted}, or another pipeline "
                "(pointloom init --help)"
            )
    aligned = ALIGNED.get(str(source), scenes.get("aligned", source in USUALLY_ALIGNED))
    for name, entry in (sections.get("finetune") or {}).items():
        if entry.get("task") == "detection" and entry["num_headings"] == 1 and not aligned:
            raise ParamsError(
                f"{file}, section 'finetune.{name}': num_headings 1 makes boxes along the axes, but the scenes of "
                f"{source} are not aligned with the walls; set prepare.scenes.aligned: true where they are or can be, "
                "or num_headings: 12"
            )
    for name, entry in (sections.get("probe") or {}).items():
        if entry.get("grounding") and source != "synthetic_rooms" and not scenes.get("sentences"):
            raise ParamsError(
                f"{file}, section 'probe.{name}': grounding needs sentences about the scenes of {source}, but "
                "prepare.scenes.sentences is empty; name ScanRefer's files there (scannet), or set grounding: null"
            )
