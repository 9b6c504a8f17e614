"""The ablation table of a report, from results made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.report.ablation import ablation_content, ablation_headline, as_table
from pointloom.report.inputs import ReportInputs, ResultRecord, load_inputs
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.sentences import format_spread
from tests.report.fixtures import write_probe, write_workspace
from tests.report.test_page import SETTINGS, build

BOOTSTRAP = BootstrapSettings(resamples=500, confidence=0.95, seed=0)
NUM_TEST = 36  # six classes of six


def row(cells: list[str], published: list[float], entries: list[str], **more: Any) -> dict[str, Any]:
    return {"cells": cells, "published": published, "entries": entries, "not_built": None, "is_full": False} | more


TABLE: dict[str, Any] = {
    "name": "m2ae-table8",
    "title": "Masking <strategy>",
    "source": "A paper, table 8",
    "protocol": "linear SVM",
    "benchmarks": ["ModelNet40"],
    "measured": ["svm"],
    "columns": ["MS mask", "Ratio"],
    "notes": ["The backbone is smaller."],
    "rows": [
        row(["✓", "0.8"], [92.9], ["full_s0", "full_s1"], is_full=True),
        row(["–", "0.8"], [88.4], ["other_s0", "other_s1"]),
        row(["✓", "0.9"], [92.5], [], not_built="nobody wrote it"),
    ],
    "untrained": "random",
}


def result(name: str, inputs: ReportInputs, *, wrong: dict[int, int]) -> ResultRecord:
    """A probe that is wrong on the first ``wrong[seed]`` test objects."""
    rows = inputs.store.rows("test")
    uid, label = inputs.store.uids[rows], inputs.store.labels[rows]
    prediction = np.stack([np.where(np.arange(len(label)) < count, (label + 1) % 6, label) for count in wrong.values()])
    runs = [{"protocol": "svm", "seed": seed, "oa": 100 * (1 - count / NUM_TEST)} for seed, count in wrong.items()]
    arrays = {"uid": uid, "label": label, "prediction": prediction, "seed": np.array(list(wrong))}
    arrays["protocol"] = np.array(["svm"] * len(wrong))
    card = {"runs": runs, "encoder": {"builder": "point_m2ae_tiny", "method": "m2ae"}}
    return ResultRecord(name=name, card=card, predictions=arrays)


@pytest.fixture
def inputs(tmp_path: Path) -> ReportInputs:
    found = load_inputs(**write_workspace(tmp_path, num_points=64))
    wrong = {"full_s0": {0: 0}, "full_s1": {1: 6}, "other_s0": {0: 9}, "other_s1": {1: 9}, "random": {0: 18, 1: 18}}
    return replace(found, probe={name: result(name, found, wrong=counts) for name, counts in wrong.items()})


def test_means_deviations_and_paired_differences_are_those_of_the_seeds(inputs: ReportInputs) -> None:
    content = ablation_content(inputs, TABLE, bootstrap=BOOTSTRAP)
    assert content is not None
    full, other, missing, untrained = content["rows"]
    assert full["ours"]["svm"]["score"]["mean"] == pytest.approx(100 * (36 + 30) / 72)
    assert full["ours"]["svm"]["score"]["std"] == pytest.approx(100 * 6 / 36 / np.sqrt(2))
    assert full["ours"]["svm"]["difference"] is None
    assert other["ours"]["svm"]["score"] == {"mean": 75.0, "std": 0.0, "count": 2}
    assert other["ours"]["svm"]["difference"]["mean"] == pytest.approx(100 * (-9 - 3) / 72)
    assert other["ours"]["svm"]["difference"]["seeds"] == 2
    assert other["published_difference"] == pytest.approx([-4.5])
    assert missing["ours"]["svm"] == {"score": None, "difference": None}
    assert untrained["ours"]["svm"]["score"]["mean"] == 50.0
    assert untrained["ours"]["svm"]["difference"]["mean"] == pytest.approx(100 * (66 - 36) / -72)
    assert (content["seeds"], content["model"]) == (2, "point_m2ae_tiny")


def test_no_table_no_content(inputs: ReportInputs) -> None:
    assert ablation_content(inputs, None, bootstrap=BOOTSTRAP) is None


def test_headline_names_every_changed_row_with_its_verdict(inputs: ReportInputs) -> None:
    content = ablation_content(inputs, TABLE, bootstrap=BOOTSTRAP)
    assert content is not None
    first, second, third = ablation_headline(content)
    assert first == "The full method reaches 91.7 ± 11.8 % (linear SVM) with 2 seeds of pre-training."
    verdict = content["rows"][1]["ours"]["svm"]["difference"]["verdict"]
    assert second.startswith("MS mask –, Ratio 0.8, linear SVM: −16.7 [")
    assert second.endswith(f"points against the full method ({verdict}).")
    assert third.startswith("no pre-training (not in the paper), linear SVM: −41.7")


def test_terminal_table_has_a_line_per_row_in_columns(inputs: ReportInputs) -> None:
    content = ablation_content(inputs, TABLE, bootstrap=BOOTSTRAP)
    assert content is not None
    head, *lines = as_table(content).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["✓", "–", "✓", "no pre-training (not in the paper)"]
    start = head.index("ModelNet40 (paper)")
    assert [line[start:].split("  ")[0] for line in lines] == ["92.9", "88.4 (−4.5)", "92.5 (−0.4)", "–"]
    assert lines[2].endswith("not built: nobody wrote it")
    assert lines[0][head.index("here, linear SVM") :].startswith("91.7 ± 11.8")


def test_page_and_markdown_show_the_values_of_the_json(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    for name in ("full_s0", "other_s0", "random"):
        method = {"full_s0": "distill", "other_s0": "mae"}.get(name, "untrained")
        write_probe(paths["results"], paths["dataset"], name, method=method, seeds=1, labelled=True)
    settings = replace(SETTINGS, probe_baseline="random", ablation=TABLE)
    content, page, folder = build(paths, tmp_path / "report", settings)
    rows = content["ablation"]["rows"]
    cells = {pointer: " ".join(text) for pointer, text in page.cells.items() if pointer.startswith("/ablation/")}
    assert set(cells) == {
        *("/ablation/rows/0/ours/svm/score", "/ablation/rows/1/ours/svm/score", "/ablation/rows/1/ours/svm/difference"),
        *("/ablation/rows/3/ours/svm/score", "/ablation/rows/3/ours/svm/difference"),
    }
    for pointer, text in cells.items():
        _, _, _, number, _, _, key = pointer.split("/")
        value = rows[int(number)]["ours"]["svm"][key]
        assert value is not None
        assert format_spread(value) in text if key == "score" else value["verdict"] in text
    assert "Ablation: Masking <strategy>" in page.text
    assert "not built: nobody wrote it" in page.text
    assert "The backbone is smaller." in page.text
    assert "#ablation" in page.addresses
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert f"| – | 0.8 | 88.4 (−4.5) | {format_spread(rows[1]['ours']['svm']['score'])} |" in markdown
    assert "| ✓ | 0.9 | 92.5 (−0.4) | not built: nobody wrote it | |" in markdown
    assert content["headline"][0].startswith("The full method reaches")
    assert content["steps"] == content["comparisons"] == []


def test_report_without_a_table_has_no_ablation(tmp_path: Path) -> None:
    content, page, _ = build(write_workspace(tmp_path, num_points=64), tmp_path / "report")
    assert content["ablation"] is None
    assert "#ablation" not in page.addresses
