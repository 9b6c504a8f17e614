"""The kinds of paths that flow between stages.

A stage is a typed function from paths to paths. The annotations below are plain ``Path`` for a type checker; the
command line, ``dvc.yaml``'s contract test and the KFP components read the attached ``Artifact`` from them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

Kind = Literal["raw", "Dataset", "Model", "Metrics", "Report", "state"]
Direction = Literal["in", "out", "state"]


@dataclass(frozen=True)
class Artifact:
    """What a path of a stage means.

    Attributes:
        kind: Sort of artefact; ``Dataset``, ``Model``, ``Metrics`` and ``Report`` are tracked outputs of stages.
        direction: ``in`` is read, ``out`` is written, ``state`` is resume state that lives outside the outputs.
        help: One line for ``--help``.
    """

    kind: Kind
    direction: Direction
    help: str


RawIn = Annotated[Path, Artifact("raw", "in", "folder of meshes, scans or point clouds")]
DatasetIn = Annotated[Path, Artifact("Dataset", "in", "prepared store")]
DatasetOut = Annotated[Path, Artifact("Dataset", "out", "prepared store to write")]
ViewsIn = Annotated[Path, Artifact("Dataset", "in", "rendered views")]
ViewsOut = Annotated[Path, Artifact("Dataset", "out", "rendered views to write")]
CaptionsIn = Annotated[Path, Artifact("Dataset", "in", "captions")]
CaptionsOut = Annotated[Path, Artifact("Dataset", "out", "captions to write")]
FeaturesIn = Annotated[Path, Artifact("Dataset", "in", "features of frozen teachers")]
FeaturesOut = Annotated[Path, Artifact("Dataset", "out", "features of frozen teachers to write")]
FamiliesIn = Annotated[Path, Artifact("Dataset", "in", "folder around all data: views, captions and features in it")]
ModelIn = Annotated[Path, Artifact("Model", "in", "folder of an encoder")]
ModelOut = Annotated[Path, Artifact("Model", "out", "folder of the encoder to write")]
ModelsIn = Annotated[Path, Artifact("Model", "in", "folder that holds one folder per encoder")]
ResultIn = Annotated[Path, Artifact("Report", "in", "folder of results")]
ResultOut = Annotated[Path, Artifact("Report", "out", "folder of results to write")]
MetricsOut = Annotated[Path, Artifact("Metrics", "out", "JSON file of headline numbers to write")]
StateDir = Annotated[Path, Artifact("state", "state", "folder for resume state, outside the outputs")]
