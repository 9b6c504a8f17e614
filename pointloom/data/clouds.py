"""Load point clouds from npy, npz, text and pcd files (ply files come through ``surfaces``)."""

import re
import warnings as python_warnings
from dataclasses import dataclass
from io import BufferedReader, BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointloom.data.quarantine import RejectedError

TEXT_SUFFIXES = (".txt", ".xyz", ".pts", ".csv", ".asc")
CLOUD_SUFFIXES = (".npy", ".npz", ".pcd", *TEXT_SUFFIXES)
_MAX_HEADER_LINES = 32
_LARGEST = 1e100
_MAX_COLUMNS = 12
_COORD_KEYS = ("coords", "coord", "points", "xyz", "pos", "vertices", "arr_0")
_COLOR_KEYS = ("colors", "color", "rgb")
_NORMAL_KEYS = ("normals", "normal")


@dataclass(frozen=True)
class Cloud:
    """Points in the coordinates of their file.

    Attributes:
        coord: (P, 3) float64.
        color: (P, 3) uint8 sRGB, None where the file has none.
        normal: (P, 3) float32, None where the file has none.
        warnings: Words such as ``invalid_points_dropped``.
    """

    coord: NDArray[np.float64]
    color: NDArray[np.uint8] | None = None
    normal: NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that the points can be used.

        Raises:
            RejectedError: There are no points, some are not finite, or all are in one place.
        """
        if len(self.coord) == 0:
            raise RejectedError("empty", "the file has no points")
        finite = np.all(np.isfinite(self.coord), axis=1)
        if not finite.all():
            raise RejectedError("not_finite", f"{int((~finite).sum())} of {len(finite)} points are NaN or infinite")
        check_size(self.coord)
        if np.ptp(self.coord, axis=0).max() <= 1e-12 * max(1.0, float(np.abs(self.coord).max())):
            raise RejectedError("zero_extent", f"all {len(finite)} points are in one place")


def check_size(coord: NDArray[np.float64]) -> None:
    """Check that squares of coordinates are numbers.

    Raises:
        RejectedError: They overflow.
    """
    largest = float(np.abs(coord).max())
    if largest > _LARGEST:
        raise RejectedError("not_finite", f"a coordinate is {largest:.0e}, no length in any unit; the file is damaged")


def load_cloud(path: Path) -> Cloud:
    """Load npy, npz, pcd or text.

    Raises:
        RejectedError: The file is damaged, empty, not finite, or has no extent.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            cloud = _from_columns(_numeric(np.load(path, allow_pickle=False)))
        elif suffix == ".npz":
            cloud = _from_npz(path)
        elif suffix == ".pcd":
            cloud = _from_pcd(path)
        else:
            cloud = _from_text(path.read_text(encoding="utf-8", errors="replace"), counted=suffix == ".pts")
    except (RejectedError, MemoryError):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if "allow_pickle" in why:  # what NumPy says of everything that is no array, with bad advice
            why = "it does not hold an array of numbers, and pickled objects are never loaded"
        why = why.partition("; use `usecols`")[0]
        raise RejectedError("unreadable", f"it is no valid {suffix} file: {why}") from error
    cloud.check()
    return cloud


def _from_npz(path: Path) -> Cloud:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name.lower(): file[name] for name in file.files}
    key = next((name for name in _COORD_KEYS if name in arrays), None)
    if key is None:
        known = ", ".join(_COORD_KEYS)
        raise RejectedError("unreadable", f"no coordinates among its arrays {sorted(arrays)}; expected one of {known}")
    base = _from_columns(_numeric(arrays[key]))
    color = base.color
    if all(channel in arrays for channel in "rgb"):
        color = _as_bytes(np.stack([arrays[channel].reshape(-1) for channel in "rgb"], axis=1))
    name = next((n for n in _COLOR_KEYS if n in arrays), None)
    if name is not None and arrays[name].ndim == 2:
        color = _as_bytes(arrays[name][:, :3])
    name = next((n for n in _NORMAL_KEYS if n in arrays), None)
    normal = base.normal if name is None else np.asarray(arrays[name], dtype=np.float32)
    for what, array in (("colours", color), ("normals", normal)):
        if array is not None and array.shape != base.coord.shape:
            raise RejectedError("unreadable", f"{len(base.coord)} points, but {what} of shape {array.shape}")
    return Cloud(base.coord, color, normal)


def _numeric(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] < 3:
        raise RejectedError("unreadable", f"expected numbers of shape (N, 3 or more), got {array.dtype} {array.shape}")
    if array.shape[1] > max(len(array), _MAX_COLUMNS):
        raise RejectedError("unreadable", f"expected a row per point, got {array.shape}: it seems to be transposed")
    return array.astype(np.float64)


def _from_columns(table: NDArray[np.float64], names: tuple[str, ...] = ()) -> Cloud:
    """Interpret columns: x y z, then colours and normals in any order, told apart by their values or their names."""
    color: NDArray[np.uint8] | None = None
    normal: NDArray[np.float32] | None = None
    for start in (3, 6):
        triple = table[:, start : start + 3]
        if triple.shape[1] < 3:
            break
        named = names[start] if len(names) == table.shape[1] else ""
        if normal is None and (named.startswith("n") or (not named and _are_normals(triple))):
            normal = triple.astype(np.float32)
        elif color is None and (named.startswith("r") or (not named and _are_colors(triple))):
            color = _as_bytes(triple)
    return Cloud(np.ascontiguousarray(table[:, :3]), color, normal)


def _are_normals(triple: NDArray[np.float64]) -> bool:
    length = np.linalg.norm(triple, axis=1)
    return bool((np.abs(length - 1) < 0.02).mean() > 0.9)


def _are_colors(triple: NDArray[np.float64]) -> bool:
    if len(triple) == 0 or triple.min() < 0 or triple.max() > 255:
        return False
    return bool(triple.max() <= 1 or (triple == np.rint(triple)).all())


def _as_bytes(color: NDArray[Any]) -> NDArray[np.uint8]:
    """Return bytes from bytes, integers to 255, or floats to 1 or to 255."""
    if color.dtype == np.uint8:
        return np.ascontiguousarray(color)
    value = np.nan_to_num(color.astype(np.float64))
    if color.dtype.kind == "f" and len(value) and value.max() <= 1:
        value = value * 255
    return np.rint(np.clip(value, 0, 255)).astype(np.uint8)


def looks_numeric(text: str) -> bool:
    """Tell whether the beginning of a text file has a line of at least three numbers after at most 32 others."""
    lines = [line for line in text.splitlines() if line.strip()][:_MAX_HEADER_LINES]
    return any(len(_numbers(line)) >= 3 for line in lines)


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in re.split(r"[\s,;]+", line.strip()) if word]
    except ValueError:
        return []


def _check_count(found: int, declared: int) -> None:
    if found < declared:
        raise RejectedError("unreadable", f"the file is cut off: {found} points of {declared}; copy it again")


def _from_text(text: str, *, counted: bool = False) -> Cloud:
    """Read x y z and more columns, separated by blanks, tabs, commas or semicolons, after header lines or a count.

    Args:
        text: Of the file.
        counted: A number before the points is how many there are.
    """
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines[: _MAX_HEADER_LINES * 2]) if len(_numbers(line)) >= 3), None)
    if first is None:
        raise RejectedError("empty" if not text.strip() else "unreadable", "there is no line with three numbers")
    header = next((line for line in reversed(lines[:first]) if re.search(r"[A-Za-z]", line)), "")
    names = tuple(word.lower() for word in re.findall(r"[A-Za-z_]\w*", header))
    body = re.sub(r"[,;]", " ", "\n".join(lines[first:]))
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("error")
        table = np.loadtxt(StringIO(body), dtype=np.float64, ndmin=2)
    if counted and first and lines[first - 1].strip().isdecimal():
        _check_count(len(table), int(lines[first - 1]))
    return _from_columns(table, names)


def _from_pcd(path: Path) -> Cloud:
    from pypcd4.pypcd4 import PointCloud

    content = path.read_bytes()
    if b"DATA ascii" in content[:4096]:  # the library takes single blanks only
        content = b"\n".join(b" ".join(line.split()) for line in content.splitlines() if line.strip()) + b"\n"
    data = PointCloud.from_fileobj(BufferedReader(BytesIO(content)))
    fields = data.fields
    if not {"x", "y", "z"} <= set(fields):
        raise RejectedError("unreadable", f"no fields x, y and z among {', '.join(fields)}")
    raw = data.pc_data
    _check_count(len(raw), int(data.metadata.points))
    coord = np.stack([np.asarray(raw[axis], dtype=np.float64).reshape(-1) for axis in "xyz"], axis=1)
    valid = np.isfinite(coord).all(axis=1)
    color = None
    packed = next((name for name in ("rgb", "rgba") if name in fields), None)
    if packed is not None:
        color = _unpack(np.asarray(raw[packed]).reshape(-1))[valid]
    normal = None
    if {"normal_x", "normal_y", "normal_z"} <= set(fields):
        columns = [np.asarray(raw[f"normal_{axis}"], dtype=np.float32).reshape(-1) for axis in "xyz"]
        normal = np.stack(columns, axis=1)[valid]
        normal = normal if np.isfinite(normal).all() else None
    # organised scans mark pixels without a return with NaN: those are no points, and normal in this format
    dropped = () if valid.all() else ("invalid_points_dropped",)
    return Cloud(coord[valid], color, normal, dropped)


def _unpack(packed: NDArray[Any]) -> NDArray[np.uint8]:
    """Unpack 0x00RRGGBB, stored as an integer or as the bits of a float."""
    bits = packed.astype(np.float32).view(np.uint32) if packed.dtype.kind == "f" else packed.astype(np.uint32)
    return np.stack([(bits >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
