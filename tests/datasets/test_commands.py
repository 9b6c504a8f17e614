import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointloom.dataset_commands import datasets
from pointloom.datasets import CARDS, OBJECT_DATASETS
from pointloom.errors import DataError

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"


def test_the_list_is_printed_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ShapeNet55-34/ShapeNet-55").mkdir(parents=True)
    (tmp_path / "ShapeNet55-34/ShapeNet-55/train.txt").touch()
    done = CliRunner().invoke(datasets, ["--in", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    titles = re.findall(r"^(\w+)  \(", done.output, flags=re.MULTILINE)
    assert titles == list(CARDS)
    assert f"train_test in {tmp_path / 'ShapeNet55-34'}" in done.output


def test_get_passes_its_arguments_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="S3DIS cannot be downloaded by a program"):
        CliRunner().invoke(datasets, ["get", "s3dis", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize("name", CARDS)
def test_the_manual_has_every_data_set_and_what_its_loader_does(name: str) -> None:
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert CARDS[name].title in row
    if name in OBJECT_DATASETS:
        dataset = OBJECT_DATASETS[name]
        conventions = dataset.conventions
        assert f"| {dataset.up} | {conventions.frame} |" in row
        assert ("nothing" in row) == (conventions.loader_transform == "none")
        assert ("before sampling" in row) == (conventions.loader_transform == "unit_sphere_before_sampling")
        assert all(f"{variant}: the first points" in row for variant in dataset.verbatim)
        assert all(f"`{variant}`" in row for variant in dataset.variants if name != "modelnet_fewshot")
