"""A folder is replaced as a whole, by one process at a time."""

from pathlib import Path

import pytest

from pointloom.data.replace import replaced_folder
from pointloom.errors import WorkspaceError


def test_second_writer_is_refused_and_costs_the_first_one_nothing(tmp_path: Path) -> None:
    target = tmp_path / "models" / "mae"
    with replaced_folder(target) as folder:
        (folder / "weights").write_text("mine")
        with pytest.raises(WorkspaceError, match="another process is writing"), replaced_folder(target):
            pass
    assert (target / "weights").read_text() == "mine"
    with replaced_folder(target) as folder:
        (folder / "weights").write_text("newer")
    assert (target / "weights").read_text() == "newer"
    assert [path.name for path in target.parent.iterdir()] == ["mae"]
