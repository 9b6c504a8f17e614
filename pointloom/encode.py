"""Features of single files, for the command line: the same intake as ``prepare``, then a pre-trained encoder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pointloom.data.clouds import CLOUD_SUFFIXES
from pointloom.data.folder import UP_AXES
from pointloom.data.intake import Intake
from pointloom.data.quarantine import RejectedError
from pointloom.data.records import ObjectPoints
from pointloom.data.sources import SourceObject
from pointloom.encoder import load_object_encoder
from pointloom.errors import CheckpointError, DataError
from pointloom.train.checkpoint import CARD

logger = logging.getLogger(__name__)

SURFACE_POINTS = 8192
MAX_FILE_MB = 2000.0


def encode_files(files: Sequence[Path], *, encoder: str, output: Path, up: str | None) -> tuple[int, int]:
    """Encode meshes or point clouds and write ``path`` (F,) and ``feature`` (F, D) to an npz file.

    Files that cannot be used are named in a warning and left out.

    Args:
        files: What to encode.
        encoder: Folder of an encoder, or an MLflow URI.
        output: File to write.
        up: Up axis of all files, None for the usual one of each format.

    Returns:
        Shape of the features.

    Raises:
        DataError: No file could be used, or the output is a folder.
        CheckpointError: There is no such encoder.
    """
    if output.is_dir():
        raise DataError(f"{output} is a folder; give --output a file to write, such as {output / 'features.npz'}")
    loaded = load_object_encoder(_named(encoder))
    num_points = loaded.card.num_points
    paths, clouds = [], []
    for path in tqdm(files, desc="read", unit="file", disable=len(files) < 10):
        try:
            points = read_shape(path, num_points=num_points, up=up)
        except FileNotFoundError:
            logger.warning("left out: %s does not exist", path)
        except IsADirectoryError:
            logger.warning("left out: %s is a folder; name its files, for example with %s/*", path, path)
        except RejectedError as error:
            logger.warning("left out: %s: %s", path, error)
        else:
            paths.append(str(path))
            clouds.append(points.coord[:num_points])
    if not paths:
        raise DataError("none of the files could be encoded; the lines above say why")
    feature = loaded.encode(np.stack(clouds))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as file:
        np.savez_compressed(file, path=np.array(paths), feature=feature)
    return len(paths), feature.shape[1]


def _named(encoder: str) -> str:
    """Return the encoder; one of a workspace, asked for outside, is an error that names those there are."""
    beside = sorted(card.parent for card in Path().glob(f"runs/*/models/*/{CARD}"))
    if Path(encoder).parts[:1] == ("models",) and not Path("models").exists() and beside:
        raise CheckpointError(
            f"{encoder}: there is no folder models/ here ({Path.cwd()}); go into a workspace, or give one of --encoder "
            + ", ".join(map(str, beside[:6]))
        )
    return encoder


def read_shape(path: Path, *, num_points: int, up: str | None) -> ObjectPoints:
    """Read a mesh or point cloud as ``prepare`` does: same frame, same sampling, farthest points first.

    Args:
        path: File to read.
        num_points: Smallest number of points to return.
        up: Up axis of the file, None for the usual one of its format.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder.
        RejectedError: The file cannot be used.
    """
    if (suffix := path.suffix.lower()) not in UP_AXES and suffix not in CLOUD_SUFFIXES and path.is_file():
        known = " ".join(sorted({*UP_AXES, *CLOUD_SUFFIXES}))
        raise RejectedError("unsupported", f"{suffix or 'files without a suffix'} cannot be read; readable are {known}")
    intake = Intake(path.parent, max(SURFACE_POINTS, num_points), seed=0, up=up or "auto", max_file_mb=MAX_FILE_MB)
    return intake(SourceObject(path.name, category=None, name=path.stem, group=path.stem))[1]
