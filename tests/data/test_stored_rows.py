"""Rows straight from the file are what the HDF5 library reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pointloom.data.stored_rows import StoredRows
from pointloom.errors import DataError


def write(path: Path, shape: tuple[int, ...], chunk: int, **options: str) -> np.ndarray:
    """Write an array block by block, as the store does, with another one growing in the same file."""
    values = np.random.default_rng(0).integers(0, 255, shape).astype(np.float32)
    with h5py.File(path, "w") as file:
        for name in ("other", "rows"):
            chunks = (1, chunk, *shape[2:])
            file.create_dataset(
                name, shape=(0, *shape[1:]), maxshape=(None, *shape[1:]), chunks=chunks, dtype="float32", **options
            )
        for end in range(1, len(values) + 1):
            for name in ("other", "rows"):
                file[name].resize(end, axis=0)
                file[name][end - 1] = values[end - 1] + (name == "other")
    return values


@pytest.mark.parametrize(("shape", "chunk"), [((9, 20, 3), 20), ((9, 20, 3), 8), ((9, 20), 8)])
@pytest.mark.parametrize("num", [20, 16, 5])
def test_rows_equal_those_of_the_library(tmp_path: Path, shape: tuple[int, ...], chunk: int, num: int) -> None:
    path = tmp_path / "rows.h5"
    values = write(path, shape, chunk)
    with h5py.File(path) as file:
        stored = StoredRows(file["rows"], path)
    rows, places = np.array([7, 0, 7, 8]), np.array([3, 1, 0, 4])
    out = np.full((5, num, *shape[2:]), -1, dtype=np.float32)
    stored.copy(rows, out, places)
    assert np.array_equal(out[places], values[rows, :num])
    assert (out[2] == -1).all()


def test_a_compressed_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    write(path, (3, 20, 3), 20, compression="gzip")
    with h5py.File(path) as file, pytest.raises(DataError, match="array '/rows' is compressed"):
        StoredRows(file["rows"], path)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.h5"
    write(path, (3, 20, 3), 20)
    with h5py.File(path) as file:
        stored = StoredRows(file["rows"], path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match="the file ends too early"):
        stored.copy(np.arange(3), np.empty((3, 20, 3), dtype=np.float32), np.arange(3))
