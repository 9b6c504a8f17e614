import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from pointloom.data.folds import load_fold, load_plain
from pointloom.errors import DataError


def _write(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def _fold(way: int = 2, shot: int = 3) -> dict[str, list[tuple[np.ndarray, int, int]]]:
    rng = np.random.default_rng(0)
    return {
        split: [
            (rng.normal(size=(16, 6)).astype(np.float32), label, 7 + label) for label in range(way) for _ in range(n)
        ]
        for split, n in (("train", shot), ("test", 4))
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_fold_of_every_pickle_protocol_is_read_as_it_was_written(tmp_path: Path, protocol: int) -> None:
    fold = _fold()
    got = load_fold(_write(tmp_path / "0.pkl", fold, protocol))
    assert got.train.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert got.test.original.tolist() == [7, 7, 7, 7, 8, 8, 8, 8]
    for points, (expected, _, _) in zip(got.test.points, fold["test"], strict=True):
        np.testing.assert_array_equal(points, expected)


def test_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    data = pickle.dumps(np.arange(4, dtype=np.float32), protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core" in data
    (tmp_path / "a.pkl").write_bytes(data)
    np.testing.assert_array_equal(load_plain(tmp_path / "a.pkl"), np.arange(4, dtype=np.float32))


def test_numpy_numbers_and_nested_plain_values_are_read(tmp_path: Path) -> None:
    value = {"a": [np.int64(3), 2.5, "word", None, (True, np.ones((2, 3), dtype=np.uint8))]}
    got = load_plain(_write(tmp_path / "a.pkl", value))
    assert got["a"][:4] == [3, 2.5, "word", None]
    np.testing.assert_array_equal(got["a"][4][1], np.ones((2, 3)))


class _Shell:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = _write(tmp_path / "evil.pkl", {"train": _Shell(f"touch {marker}"), "test": []})
    with pytest.raises(DataError, match=r"posix\.system"):
        load_fold(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # the file is armed: the ordinary reader runs it
    assert marker.exists()


@pytest.mark.parametrize(
    "value", [eval, OrderedDict(a=1), np.array([{}], dtype=object), Path("a"), np.array(["text"]), b"bytes"]
)
def test_what_is_not_plain_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"a\.pkl"):
        load_plain(_write(tmp_path / "a.pkl", value))


def test_a_cut_off_file_and_a_missing_one_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "0.pkl", _fold())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"0\.pkl.*official source"):
        load_fold(path)
    with pytest.raises(DataError, match=r"1\.pkl: cannot be read"):
        load_fold(tmp_path / "1.pkl")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "expected a dict with train and test, got list"),
        ({"train": []}, "the keys"),
        ({"train": [], "test": []}, "train must be a list"),
        ({"train": [(np.zeros((4, 5)), 0, 0)], "test": [1]}, "object 0 has points of shape"),
        ({"train": [np.zeros((4, 6))], "test": [1]}, "object 0 is ndarray"),
    ],
)
def test_other_content_than_a_fold_is_explained(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_fold(_write(tmp_path / "0.pkl", value))
