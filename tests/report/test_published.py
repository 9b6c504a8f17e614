"""Published values: the table is what the papers print, and our rows get the right ones with what differs."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pointloom.datasets import CARDS
from pointloom.report.build import build_report
from pointloom.report.inputs import ReportInputs, load_inputs
from pointloom.report.published import TITLES, Published, differences, find_published, published_rows, read_published
from tests.report.fixtures import write_workspace
from tests.report.test_page import SETTINGS

PAPERS = {
    "Point-M2AE, table": "000",
    "MM-3DScene, table": "001",
    "Multimodal": "002",
    "Masked Scene Modeling, table 8": "003",
    "Point-PQAE": "004",
}
"""Begin of a source to the number of its text."""
SHORT = {
    "Point Transformer": "PointTrans",
    "Stratified Transformer": "Stratified Trans",
    "VoteNet": "VoteNet",
    "H3DNet": "H3DNet",
}
LINES = {
    "Point-MAE": r"Point-MAE",
    "Point-M2AE": r"Point-M2AE",
    "Point-PQAE": r"^\|",
    "two-stage (Point-MAE)": r"Ours \(Point-MAE\)",
    "two-stage (Point-M2AE)": r"Ours",
    "two-stage (3DETR)": r"Ours \(3DETR\)",
    "two-stage (3DETR-m)": r"Ours \(3DETR-m\)",
    "3DETR, from scratch": r"3DETR \[",
    "3DETR-m, from scratch": r"3DETR-m \[",
    "Point-M2AE (3DETR-m)": r"\[S\] Point-M2AE",
    "MSM (3DETR)": r"\+ Ours",
    **{f"{name}, from scratch": rf"^{short}\S* .*\(scratch\)" for name, short in SHORT.items()},
    **{f"MM-3DScene ({name})": rf"MM-?3DScene \+ {short}" for name, short in SHORT.items()},
}
"""Method to what its lines of a table have in common."""


def value_of(dataset: str, variant: str, method: str, metric: str = "oa", transfer: str = "full") -> Published:
    task = {"shapenetpart": "part_segmentation", "modelnet_fewshot": "few_shot"}.get(dataset, "classification")
    found = find_published(dataset=dataset, variant=variant, task=task, transfer=transfer, metric=metric)
    return next(p for p in found if p.method == method)


def test_every_value_is_on_a_line_of_its_paper(shared: Path) -> None:
    checked, lost = 0, list[str]()
    for published in read_published():
        quoted = re.search(r"quoted in (.*)", published.source)
        source = quoted[1] if quoted else published.source
        number = next((number for begin, number in PAPERS.items() if source.startswith(begin)), None)
        if number is None:
            lost.append(source)
            continue
        text = next((shared / "papers").glob(f"{number}_*.txt")).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if re.search(LINES[published.method], line)]
        pattern = rf"(?<![\d.]){re.escape(f'{published.value:g}')}0?(?!\d)"
        assert any(re.search(pattern, line) for line in lines), published
        checked += 1
    assert checked == len(read_published()) - len(lost)
    # a README, and tables that the text of their paper has lost; the next test has another copy of their numbers
    assert Counter(lost) == {
        "Point-MAE, table of models in its README": 1,
        **{f"Masked Scene Modeling, table {table}": number for table, number in ((1, 18), (2, 6), (3, 6))},
    }


def test_values_of_lost_tables_are_those_of_the_specification(shared: Path) -> None:
    lines = (shared / "spec" / "scenes.md").read_text(encoding="utf-8").splitlines()
    for published in read_published():
        if found := re.fullmatch(r"Masked Scene Modeling, table ([123])", published.source):
            (line,) = [line for line in lines if line.startswith(f"Table {found[1]} [web]")]
            value = f"{published.value:.1f}".removeprefix("0")
            assert re.search(rf"(?<![\d.]){re.escape(value)}(?!\d)", line), published


def test_rows_are_complete_and_nothing_is_there_twice() -> None:
    keys = Counter((p.dataset, p.variant, p.task, p.transfer, p.metric, p.points, p.method) for p in read_published())
    assert max(keys.values()) == 1
    for published in read_published():
        assert published.dataset in CARDS
        assert published.metric in TITLES
        assert 0 < published.value < 100
        assert published.source
        known = CARDS[published.dataset].trees
        assert not published.variant or any(variant.startswith(published.variant) for variant in known)


def test_well_known_values_are_found_by_benchmark() -> None:
    assert value_of("scanobjectnn", "pb_t50_rs", "Point-MAE").value == 85.18
    assert value_of("scanobjectnn", "obj_bg", "Point-M2AE").value == 91.22
    assert value_of("modelnet40", "resampled", "Point-M2AE", "oa_voting_max").value == 94.0
    assert value_of("modelnet_fewshot", "10way_20shot/7", "Point-PQAE").std == 2.7
    assert value_of("shapenetpart", "trainval", "Point-M2AE", "miou_instance").value == 86.51


OFFICIAL = {"num_points": 2048, "votes": 1, "selection": "official"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"num_points": 1024}, ["points: 1024 here, 2048 published"]),
        ({"votes": 10}, ["test draws: mean accuracy of 10 random draws here, one farthest-point draw published"]),
        ({"selection": "last"}, ["selection: last epoch here, the epoch that is best on the test split published"]),
    ],
)
def test_each_difference_of_the_protocols_is_named(changes: dict[str, object], expected: list[str]) -> None:
    published = replace(value_of("scanobjectnn", "obj_bg", "Point-MAE"), seeds="3 runs")
    assert differences(published, OFFICIAL | changes, 3) == expected


def test_seeds_folds_voting_and_the_svm_are_compared_too() -> None:
    published = value_of("scanobjectnn", "obj_bg", "Point-PQAE")
    assert differences(published, OFFICIAL, 5) == ["runs: mean of 5 here, best of about 8 published"]
    fold = value_of("modelnet_fewshot", "5way_10shot", "Point-MAE")
    protocol = {"num_points": 1024, "votes": 1, "selection": "official", "folds": "seeded, of our own"}
    assert differences(fold, protocol, 10) == ["folds: of our own here, the community's published"]
    voted = value_of("modelnet40", "", "Point-M2AE", "oa_voting_max")
    protocol = {"num_points": 1024, "votes": 4, "selection": "official", "voting": {"draws": 5, "passes": 2}}
    assert differences(replace(voted, seeds="1"), protocol, 1) == ["voting: 5 draws per pass here, 10 published"]
    (svm,) = find_published(dataset="modelnet40", variant="h5", task="svm", transfer="svm", metric="oa")
    assert svm.value == 92.9
    ours = differences(svm, {"num_points": 1024, "selection": "last", "svm": {"protocol": "ours"}}, 1)
    assert [sentence.split(":")[0] for sentence in ours] == ["SVM", "runs"]


@pytest.fixture
def benchmark(tmp_path: Path) -> ReportInputs:
    """A workspace whose objects are said to be ScanObjectNN's."""
    inputs = load_inputs(**write_workspace(tmp_path, num_points=128))
    inputs.store.info = replace(inputs.store.info, source="scanobjectnn", settings={"variant": "obj_only"})
    return inputs


def test_our_results_stand_beside_the_published_ones(benchmark: ReportInputs) -> None:
    rows = published_rows(benchmark)
    assert {row["name"] for row in rows} == set(benchmark.finetune)
    row = next(row for row in rows if row["name"] == "mae")
    runs = [run["oa"] for run in benchmark.finetune["mae"].runs if run.get("fraction", 1) == 1]
    assert row["ours"]["mean"] == pytest.approx(sum(runs) / len(runs))
    assert row["ours"]["count"] == len(runs)
    assert {p["method"]: p["value"] for p in row["published"]} == {
        "Point-MAE": 88.29,
        "Point-M2AE": 88.81,
        "Point-PQAE": 93.6,
        "two-stage (Point-MAE)": 93.73,
        "two-stage (Point-M2AE)": 94.25,
    }


def test_frozen_protocols_get_the_frozen_values(benchmark: ReportInputs) -> None:
    card = benchmark.finetune["mae"].card
    for head, value in (("mlp3", 85.24), ("mlp_linear", 83.23)):
        protocol = card["protocol"] | {"head": head, "transfer": {"freeze": "official", "head_lr_factor": 10}}
        benchmark.finetune["mae"] = replace(benchmark.finetune["mae"], card=card | {"protocol": protocol})
        row = next(row for row in published_rows(benchmark) if row["name"] == "mae")
        assert row["published"][0]["value"] == value


def test_other_data_has_no_published_values(benchmark: ReportInputs) -> None:
    benchmark.store.info = replace(benchmark.store.info, source="folder", settings={})
    assert published_rows(benchmark) == []


def test_the_report_shows_value_source_and_what_differs(benchmark: ReportInputs, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    build_report(benchmark, folder, SETTINGS)
    content = json.loads((folder / "report.json").read_text())
    assert len(content["published"]) == len(benchmark.finetune)
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "Published values of the same benchmarks" in text
        assert "88.29" in text
        assert "Multimodal Masked Point Distillation, table 3" in text
        assert "here, best of about 8 published" in text
