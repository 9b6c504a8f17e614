"""The three files of a report, read back as a reader would get them."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.report.build import ReportSettings, build_report
from pointloom.report.inputs import load_inputs
from pointloom.report.lineage import bottleneck
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.sentences import format_difference, format_spread, headline
from tests.report.fixtures import write_workspace

SETTINGS = ReportSettings(
    title="Small shapes <1>",
    baseline="scratch",
    probe_baseline="scratch",
    detail=["scratch", "mae"],
    bootstrap=BootstrapSettings(resamples=500, confidence=0.95, seed=0),
    seed=0,
    tsne_objects=30,
    queries=2,
    viewer_objects=2,
    thumbnail_size=32,
)
LOADING = {"src", "href", "srcset", "poster", "action", "data"}


class Page(HTMLParser):
    """Collect what a test asks for: loaded addresses, cells with a pointer into the JSON, text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.cells: dict[str, list[str]] = {}
        self.text: list[str] = []
        self.tags: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None
        self._silent = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._silent = tag in {"script", "style"} or (self._silent and tag not in {"script", "style"})
        self.addresses += [value or "" for key, value in attrs if key in LOADING]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
            pointer = dict(attrs).get("data-json")
            self._cell = self.cells.setdefault(pointer, []) if pointer else None

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._silent = False
        if tag in {"td", "th"}:
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._silent or not data.strip():
            return
        self.text.append(data.strip())
        if self._cell is not None:
            self._cell.append(data.strip())
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += " " + data.strip()


def make(root: Path, settings: ReportSettings = SETTINGS, **options: Any) -> tuple[dict[str, Any], Page, Path]:
    paths = write_workspace(root, num_points=128, **options)
    return build(paths, root / "report", settings)


def build(
    paths: dict[str, Path], folder: Path, settings: ReportSettings = SETTINGS
) -> tuple[dict[str, Any], Page, Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    build_report(load_inputs(**paths), folder, settings)
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content, Page((folder / "report.html").read_text(encoding="utf-8")), folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Page, Path]:
    return make(tmp_path_factory.mktemp("labelled"))


def test_page_loads_nothing_from_anywhere(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    _, page, folder = labelled
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "iframe" not in page.tags
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", html[: html.index("</style>")])
    assert len(html) < 12e6


def test_anchors_of_the_contents_exist(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    _, page, folder = labelled
    html = (folder / "report.html").read_text(encoding="utf-8")
    anchors = [address for address in page.addresses if address.startswith("#")]
    assert len(anchors) == 12
    assert all(f'id="{anchor[1:]}"' in html for anchor in anchors)


def test_every_value_in_the_page_is_the_value_in_the_json(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    content, page, _ = labelled
    assert len(page.cells) > 60
    for pointer, text in page.cells.items():
        value: Any = content
        for key in pointer.strip("/").split("/"):
            value = value[int(key)] if isinstance(value, list) else value[key]
        shown = " ".join(text)
        if value is None:
            assert shown == "–"
        elif isinstance(value, dict) and "verdict" in value:
            assert shown == f"{format_difference(value)} {value['verdict']}"
        elif isinstance(value, dict):
            assert shown.startswith(format_spread(value))
        else:
            assert float(shown.strip(" ×")) == pytest.approx(value, abs=0.051)


def test_every_row_of_every_result_table_has_a_labels_tag(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    _, page, _ = labelled
    tagged = [table for table in page.tables if any("Labels" in cell for cell in table[0])]
    tables = [table for table in tagged if "Labels used" not in " ".join(table[0]) or len(table[0]) > 3]
    assert len(tables) == 4
    for table in tables:
        column = next(i for i, cell in enumerate(table[0]) if re.search(r"Labels( seen before)?$", cell.strip()))
        rows = [row for row in table[1:] if len(row) > 1]
        assert rows
        assert all(row[column].strip() in {"none", "captions", "classes"} for row in rows)


def test_summary_has_supervised_scratch_longer_scratch_pretrained_and_probe_rows(
    labelled: tuple[dict[str, Any], Page, Path],
) -> None:
    content, page, _ = labelled
    assert [row["name"] for row in content["finetune"]] == ["pointnet", "scratch", "scratch_long", "mae"]
    assert {row["protocol"] for row in content["probe"]} == {"svm", "linear", "few_shot_5w10s"}
    scratch_long = next(row for row in content["comparisons"] if row["control"] == "scratch_long")
    assert scratch_long["control_compute"] == pytest.approx(378 / (171 + 168))
    text = " ".join(page.text)
    for words in (
        "one standard error",
        "A seed covers",
        "Selection “last”",
        "Voting costs",
        "self-supervised",
        "control",
    ):
        assert words.lower() in text.lower()


def test_report_md_names_existing_pictures_and_the_same_accuracies(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    content, _, folder = labelled
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((thumbnails/[^)]+)\)", markdown)
    assert len(pictures) > 6
    assert all((folder / picture).is_file() for picture in pictures)
    for row in content["finetune"]:
        assert f"**{row['name']}** " in markdown
        assert format_spread(row["oa"]) in markdown


def test_map_and_retrieval_say_whose_objects_they_show(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    text = " ".join(labelled[1].text)
    assert "Map of the test objects" in text
    assert "among the other test objects" in text


def test_names_from_files_cannot_break_the_page(labelled: tuple[dict[str, Any], Page, Path]) -> None:
    _, page, folder = labelled
    assert "Small shapes <1>" in page.text
    assert any("flat <b>.obj" in text for text in page.text)
    assert "<b>.obj" not in (folder / "report.html").read_text(encoding="utf-8").split("</head>")[1]


def test_headline_says_no_proven_difference_exactly_where_the_interval_holds_zero(
    labelled: tuple[dict[str, Any], Page, Path],
) -> None:
    content, _, _ = labelled
    for row in content["comparisons"]:
        assert (row["difference"]["low"] <= 0 <= row["difference"]["high"]) == (
            row["difference"]["verdict"] == "no proven difference"
        )
        if row["same_architecture"]:
            (sentence,) = [
                text for text in content["headline"] if f"against {row['control']} (" in text and "%," in text
            ]
            assert sentence.endswith(f"points ({row['difference']['verdict']}).")


def test_unlabelled_data_gets_a_report_without_accuracies(tmp_path: Path) -> None:
    content, page, _ = make(tmp_path, labelled=False)
    text = " ".join(page.text)
    assert not content["finetune"] + content["probe"] + content["retrieval"] + content["headline"]
    assert "The data has no class labels" in text
    assert not re.search(r"accuracy|confusion|low-label", text, flags=re.IGNORECASE)
    assert "Reconstructions" in text
    assert "Map of the prepared objects" in text, "none are held out"
    assert content["neighbors"]["mae"]


def test_results_and_runs_may_be_absent(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64, failures=False)
    for name in ("models", "results", "runs"):
        shutil.rmtree(paths[name])
    _, page, folder = build(paths, tmp_path / "report")
    text = " ".join(page.text)
    for words in (
        "There are no results yet",
        "No model was trained on more than one share",
        "No encoder was pre-trained",
        "No encoder left reconstructions behind",
        "nothing could be retrieved",
        "Every input could be used",
        "metrics files of the earlier stages were not found",
    ):
        assert words in text
    assert "There are no results yet" in (folder / "report.md").read_text(encoding="utf-8")


def test_one_seed_has_no_deviation_and_says_so(tmp_path: Path) -> None:
    content, page, _ = make(tmp_path, seeds=1, fractions=(1.0,))
    assert all(row["oa"]["std"] is None for row in content["finetune"])
    assert "A row with one seed has no ±" in " ".join(page.text)
    assert not content["low_label"]


def test_damaged_and_foreign_pieces_become_warnings(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    (paths["models"] / "mae" / "samples.npz").write_bytes(b"PK broken")
    (paths["results"] / "finetune" / "pointnet" / "result.json").write_text("{", encoding="utf-8")
    card_path = paths["results"] / "finetune" / "mae" / "result.json"
    card = json.loads(card_path.read_text(encoding="utf-8"))
    card["data"]["digest"] = "0" * 64
    card_path.write_text(json.dumps(card), encoding="utf-8")
    content, page, _ = build(paths, tmp_path / "report")
    assert len(content["problems"]) == 3
    text = " ".join(page.text)
    assert "mae/samples.npz could not be read" in text
    assert "results/finetune/mae was made from data 000000000000" in text


def test_a_baseline_that_does_not_exist_leaves_differences_empty(tmp_path: Path) -> None:
    content, _, _ = make(tmp_path, replace(SETTINGS, baseline="nobody", probe_baseline="nobody", detail=["nobody"]))
    assert all(row["difference"] is None for row in content["finetune"] + content["probe"])
    assert content["comparisons"][0]["difference"] is not None
    assert content["classes"] == []


def test_a_row_can_be_compared_with_another_one_than_the_baseline(tmp_path: Path) -> None:
    others = {"baselines": {"mae": "pointnet"}, "probe_baselines": {"mae": "nobody"}}
    content, page, folder = make(tmp_path, replace(SETTINGS, **others))
    rows = {row["name"]: (index, row) for index, row in enumerate(content["finetune"])}
    index, row = rows["mae"]
    (control,) = [other for other in content["comparisons"] if other["control"] == "pointnet"]
    assert row["difference"] == control["difference"]
    assert page.cells[f"/finetune/{index}/difference"][-1] == "to pointnet"
    assert f"{format_difference(row['difference'])}, {row['difference']['verdict']} (to pointnet)" in (
        folder / "report.md"
    ).read_text(encoding="utf-8")
    assert rows["scratch_long"][1]["baseline"] == "scratch"
    assert not page.cells[f"/finetune/{rows['scratch_long'][0]}/difference"][-1].startswith("to ")
    assert all(each["difference"] is None for each in content["probe"] if each["name"] == "mae")
    low = [each for each in content["low_label"] if each["name"] == "mae"]
    assert {each["baseline"] for each in low} == {"pointnet"}
    sentences = [sentence for sentence in content["headline"] if sentence.startswith("Frozen features")]
    assert not sentences


def test_three_encoders_get_one_sentence_each_about_frozen_features(tmp_path: Path) -> None:
    content, _, _ = make(tmp_path)
    rows = [row for row in content["probe"] if row["trained"] and row["difference"]]
    assert len(rows) > 1
    one = headline(finetune=[], comparisons=[], probe=content["probe"], low_label=[])
    assert len(one) == len(rows)
    crowd = [row | {"name": name} for row in content["probe"] for name in ("a", "b", "c") if row["trained"]]
    sentences = headline(finetune=[], comparisons=[], probe=crowd, low_label=[])
    assert [sentence.partition(" reaches")[0] for sentence in sentences] == [
        f"Frozen features, linear SVM: {name}" for name in ("a", "b", "c")
    ]


def test_the_same_inputs_give_the_same_numbers_and_pictures(tmp_path: Path) -> None:
    paths = write_workspace(tmp_path, num_points=64)
    first, _, folder = build(paths, tmp_path / "one")
    second, _, other = build(paths, tmp_path / "two")
    assert first == second
    for picture in sorted(folder.rglob("*.png")):
        assert picture.read_bytes() == (other / picture.relative_to(folder)).read_bytes()
    assert np.isfinite(first["standard_error"])


def test_bottleneck_is_the_longest_stage_and_the_training_that_waits_most() -> None:
    row = {"stage": "prepare", "name": "", "wall_s": 10.0, "cpu_s": 20.0, "waiting": None}
    rows = [row, row | {"stage": "pretrain", "name": "mae", "wall_s": 30.0, "cpu_s": 27.0, "waiting": 4.0}]
    assert bottleneck(rows[:1]) == "prepare takes 100% of the time and keeps 2.0 cores busy."
    assert bottleneck([*rows, row | {"stage": "distill", "name": "d", "waiting": 1.0}, row | {"wall_s": None}]) == (
        "pretrain mae takes 60% of the time and keeps 0.9 cores busy; loader-bound 4.0 % at most (pretrain mae)."
    )
    assert bottleneck([row | {"wall_s": None}]) is None
