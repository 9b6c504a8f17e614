"""Features of one scan, for the command line: per point, as a picture, and to carry labels over from another scan."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError
from pointloom.data.scene_checks import MAX_EXTENT
from pointloom.datasets.scans import read_scan
from pointloom.datasets.scene_sets import SceneChoices, SceneItem
from pointloom.encoder import PretrainedSceneEncoder, load_scene_encoder
from pointloom.errors import DataError
from pointloom.ops.normals import estimate_normals
from pointloom.ops.pca_colors import pca_colors
from pointloom.ops.superpoints import superpoints
from pointloom.report.scan_page import write_scan_page
from pointloom.tasks.scene_probing import PointFeatures, gather_superpoints

if TYPE_CHECKING:
    from pointloom.data.scenes import Scene

logger = logging.getLogger(__name__)

LEAST_VOXELS = 4
"""Voxels along the longest side of the smallest scan; what is smaller has hardly more than one feature."""

Metric = Literal["l2", "l1", "cosine"]


@dataclass(frozen=True)
class ScanOptions:
    """How scans are read.

    Attributes:
        up: Up axis of the files.
        meters: Length of a unit of the files in metres.
    """

    up: str = "z"
    meters: float = 1.0


@dataclass(frozen=True)
class Labelled:
    """A scan whose points are labelled.

    Attributes:
        scan: File of the points.
        labels: npy file with an integer per point, -1 where unknown.
        metric: Distance between features of super-points.
    """

    scan: Path
    labels: Path
    metric: Metric = "cosine"


def write_scan_features(
    scan: Path, *, encoder: str, output: Path, options: ScanOptions, labelled: Labelled | None = None
) -> dict[str, int]:
    """Encode a scan and write what can be made of its features.

    Writes ``features.npz`` (``coord`` (n, 3), ``feature`` (n, d) float16, ``pca`` (n, 3) uint8, and ``label`` (n,)),
    ``pca.ply``, and ``view.html``, which shows colours, features and labels beside each other.

    Args:
        scan: PLY, PCD, npy or another cloud.
        encoder: Folder of a scene encoder, or an MLflow URI.
        output: Folder to write.
        options: How scans are read.
        labelled: Where labels come from; every super-point of ``scan`` gets that of the nearest labelled one.

    Returns:
        Numbers of points and channels.

    Raises:
        DataError: A scan cannot be used, or labels do not fit their scan.
        CheckpointError: There is no such encoder of scenes.
    """
    if output.exists() and not output.is_dir():
        raise DataError(f"{output} is a file; give a folder to write to: --output")
    loaded = load_scene_encoder(encoder)
    scene = _read(scan, options)
    points = _encode(loaded, scene)
    colors = pca_colors(torch.from_numpy(points.feature)).numpy()
    arrays = {"coord": scene.coord, "feature": points.feature.astype(np.float16), "pca": colors}
    place = None
    if labelled is not None:
        source = _read(labelled.scan, options)
        names, known = _read_labels(labelled.labels, len(source.coord))
        gallery = gather_superpoints([_encode(loaded, source, known)], num_classes=len(names))
        place = gallery.classify(points, metric=labelled.metric)
        arrays["label"] = names[place]
    output.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(output / "features.npz", **arrays)  # type: ignore[arg-type]
    write_ply(output / "pca.ply", scene.coord, colors)
    write_scan_page(output / "view.html", scene, pca=colors, label=place, title=scan.name)
    return {"points": len(scene.coord), "channels": points.feature.shape[1]}


def _read(path: Path, options: ScanOptions) -> "Scene":
    """Read a scan and give it normals where it has none.

    Raises:
        DataError: It cannot be used.
    """
    from dataclasses import replace

    if not path.is_file():
        raise DataError(f"{path} does not exist; give a scan such as room.ply, room.pcd or room.npy")
    try:
        scene = read_scan(SceneItem(path.name, path), SceneChoices(up=options.up, meters=options.meters))
    except RejectedError as error:
        raise DataError(f"{path}: {error}") from error
    extent = float(np.ptp(scene.coord, axis=0).max())
    if extent > MAX_EXTENT:
        raise DataError(
            f"{path}: the scan is {extent:,.0f} m long; if its unit is the millimetre, say so: --meters 0.001"
        )
    if scene.normal is None:
        return replace(scene, normal=estimate_normals(torch.from_numpy(scene.coord)).numpy())
    return scene


def _encode(encoder: PretrainedSceneEncoder, scene: "Scene", label: NDArray[np.int64] | None = None) -> PointFeatures:
    assert scene.normal is not None
    extent, voxel = float(np.ptp(scene.coord, axis=0).max()), encoder.module.voxel_size
    if extent < LEAST_VOXELS * voxel:
        raise DataError(
            f"{scene.name}: the scan is {extent:.2g} m long, a voxel of this encoder {voxel:g} m; if the unit of the "
            "file is larger than the metre, say so: --meters"
        )
    feature = encoder.encode(scene.coord, scene.color, scene.normal)
    color = None if scene.color is None else scene.color / np.float32(255)
    number = superpoints(scene.coord, scene.normal, color)
    return PointFeatures(feature, np.full(len(feature), -1) if label is None else label, number)


def _read_labels(path: Path, num_points: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels that occur, and the place among them of every point's label, -1 where it is unknown.

    Raises:
        DataError: The file does not hold one integer per point, or no label.
    """
    try:
        label = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises almost anything for files of other formats
        raise DataError(f"{path}: cannot be read as npy ({type(error).__name__}: {error})") from error
    if not isinstance(label, np.ndarray):
        raise DataError(f"{path}: holds several arrays; save the labels alone: np.save('labels.npy', labels)")
    if label.shape != (num_points,) or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"{path}: expected an integer for each of the {num_points} points of the labelled scan, got "
            f"{label.dtype} of shape {label.shape}"
        )
    if not (label >= 0).any():
        raise DataError(f"{path}: not a single point has a label (0, 1, ...; -1 is unknown)")
    names: NDArray[np.int64] = np.unique(label[label >= 0]).astype(np.int64)
    return names, np.where(label >= 0, np.searchsorted(names, label), -1)


def write_ply(path: Path, coord: NDArray[np.float32], color: NDArray[np.uint8]) -> None:
    """Write a coloured cloud as binary PLY."""
    record = np.empty(len(coord), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    record["xyz"], record["rgb"] = coord, color
    names = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {name}" for name in ("red", "green", "blue")
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(coord)}", *names, "end_header"]
    path.write_bytes("\n".join(lines).encode() + b"\n" + record.tobytes())
