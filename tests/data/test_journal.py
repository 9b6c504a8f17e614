from pathlib import Path

import numpy as np
import pytest
from test_shards import make_points, make_record

from pointloom.data.journal import Journal
from pointloom.errors import WorkspaceError


def fill(path: Path, num: int) -> None:
    with Journal(path) as journal:
        for i in range(num):
            points = make_points(i, 32, segment=i % 2 == 0)
            journal.append(f"key{i}", make_record(i, category="chair"), points)


def test_finished_objects_come_back(tmp_path: Path) -> None:
    fill(tmp_path / "j", 5)
    with Journal(tmp_path / "j") as journal:
        assert len(journal) == 5
        assert "key3" in journal
        assert "key5" not in journal
        record, points = journal.read("key2")
    expected = make_points(2, 32, segment=True)
    assert record == make_record(2, category="chair")
    np.testing.assert_array_equal(points.coord, expected.coord)
    np.testing.assert_array_equal(points.color, expected.color)
    np.testing.assert_array_equal(points.segment, expected.segment)
    np.testing.assert_allclose(points.normal, expected.normal, atol=1e-3)


@pytest.mark.parametrize("cut", [1, 30, 500, 701])
def test_a_cut_off_record_is_forgotten_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    fill(path, 3)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    with Journal(path) as journal:
        assert len(journal) == 2
        journal.append("new", make_record(7, category="bed"), make_points(7, 32))
    with Journal(path) as journal:
        assert len(journal) == 3
        assert journal.read("new")[0].category == "bed"


def test_a_damaged_record_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "j"
    fill(path, 3)
    data = bytearray(path.read_bytes())
    data[-10] ^= 255
    path.write_bytes(data)
    with Journal(path) as journal:
        assert len(journal) == 2


def test_two_runs_cannot_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j"), pytest.raises(WorkspaceError, match="another run is writing"):
        Journal(tmp_path / "j")
