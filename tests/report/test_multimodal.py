"""The report of a multimodal workspace, read back as a reader would get it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pointloom.data.features import FeatureStore
from pointloom.data.shape_index import ShapeIndex
from pointloom.data.shards import ObjectStore
from pointloom.report.findings import multimodal_headline
from pointloom.report.sentences import format_difference, format_spread
from pointloom.report.view_strips import depth_shade
from pointloom.stages.report import headline_metrics
from tests.report.multimodal_fixtures import captions_of, write_multimodal_workspace
from tests.report.test_page import SETTINGS, Page, build

Made = tuple[dict[str, Any], Page, Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("multimodal")
    paths = write_multimodal_workspace(root, num_points=128)
    content, page, folder = build(paths, root / "report", replace(SETTINGS, queries=4, detail=["scratch", "distill"]))
    return content, page, folder, root


def test_page_loads_nothing_and_its_contents_lead_to_every_section(made: Made) -> None:
    _, page, folder, _ = made
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    html = (folder / "report.html").read_text(encoding="utf-8")
    anchors = [address for address in page.addresses if address.startswith("#")]
    assert {"#text", "#teachers", "#views"} <= set(anchors)
    assert all(f'id="{anchor[1:]}"' in html for anchor in anchors)
    assert len(html) < 12e6


def test_every_value_in_the_page_is_the_value_in_the_json(made: Made) -> None:
    content, page, _, _ = made
    multimodal = [pointer for pointer in page.cells if pointer.startswith(("/multimodal", "/steps"))]
    assert len(multimodal) > 20
    for pointer in multimodal:
        value: Any = content
        for key in pointer.strip("/").split("/"):
            value = value[int(key)] if isinstance(value, list) else value[key]
        shown = " ".join(page.cells[pointer])
        if value is None:
            assert shown == "–"
        elif isinstance(value, dict) and "verdict" in value:
            assert shown == f"{format_difference(value)} {value['verdict']}"
        elif isinstance(value, dict):
            assert shown.startswith(format_spread(value))
        else:
            assert float(shown) == pytest.approx(value, abs=0.051)


def test_every_encoder_row_of_every_table_has_a_labels_tag(made: Made) -> None:
    _, page, _, _ = made
    tagged = [table for table in page.tables if any(cell.strip() == "Labels" for cell in table[0])]
    assert len(tagged) == 5
    for table in tagged:
        column = next(i for i, cell in enumerate(table[0]) if cell.strip() == "Labels")
        tags = {row[column].strip() for row in table[1:] if len(row) > 1}
        assert tags <= {"none", "captions", "classes", ""}
        assert "captions" in tags


def test_seen_and_held_out_classes_are_named_as_decided_with_chance_and_interval(made: Made) -> None:
    content, page, _, root = made
    seen, held_out = content["multimodal"]["classification"]
    assert seen["title"] == "text classification of seen classes"
    assert held_out["title"] == "held-out classes (names in no training caption)"
    assert held_out["held_out"] == ["chair"]
    assert (seen["chance1"], seen["chance5"]) == (20.0, 100.0)
    with np.load(root / "results" / "align" / "align" / "predictions.npz") as arrays:
        hits = arrays["hit1"][arrays["classes"] == "seen"]
    assert seen["interval1"]["mean"] == pytest.approx(100 * np.nanmean(hits))
    assert seen["interval1"]["low"] < seen["top1"]["mean"] < seen["interval1"]["high"]
    assert seen["interval1"]["verdict"] == "above chance"
    assert seen["interval5"] is None  # five classes: guessing is always right
    assert held_out["interval1"]["verdict"] == "no proven difference to chance"
    assert "zero-shot" not in " ".join(page.text).lower().replace("no zero-shot result", "").replace(
        "zero-shot is said", ""
    )


def test_names_in_no_training_caption_are_not_called_seen(made: Made, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made[3], tmp_path / "own"))
    path = root / "results" / "align" / "align" / "result.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["protocol"]["category_words"] = False
    path.write_text(json.dumps(card), encoding="utf-8")
    content, _, _ = build(_paths(root), tmp_path / "report")
    assert content["multimodal"]["classification"][0]["title"].startswith("trained classes whose names are in no")


def test_text_queries_are_ranked_by_the_index_and_marked_right_or_wrong(made: Made) -> None:
    content, _, folder, root = made
    store, index = ObjectStore(root / "data" / "objects"), ShapeIndex(root / "results" / "align" / "align")
    features = FeatureStore(root / "data" / "features" / "offline")
    test = store.rows("test")
    embedding = index.rows(test)
    rows = content["multimodal"]["queries"]["align"]
    assert [row["kind"] for row in rows] == ["class", "class", "caption", "caption"]
    for row in rows:
        uids = [cell["uid"] for cell in row["answers"]]
        if row["kind"] == "class":
            label = store.info.classes.index(row["text"])
            right = store.labels[test] == label
            query = features.class_text("words")[label]
        else:
            own = [uid for uid, found in captions_of(store).items() if found and found[0].text == row["text"]]
            row_of = features.row_of[own[0]]
            query = features.read_text("words", np.array([row_of]), np.array([0]))[0][0]
            right = np.isin(store.uids[test], own)
        order = np.argsort(-(embedding @ query), kind="stable")
        assert uids == store.uids[test[order[:5]]].tolist()
        assert [cell["right"] for cell in row["answers"]] == right[order[:5]].tolist()
        assert row["first_right"] == 1 + int(np.flatnonzero(right[order])[0])
        assert row["num_right"] == right.sum()
        assert all((folder / cell["image"]).is_file() for cell in row["answers"])
        assert {store.splits[np.flatnonzero(store.uids == uid)[0]] for uid in uids} == {"test"}


def test_teachers_and_students_are_compared_on_test_objects(made: Made) -> None:
    content, _, _, _ = made
    (block,) = content["multimodal"]["teachers"]
    assert block["teachers"] == ["words", "shade"]
    assert [row["name"] for row in block["rows"]] == ["scratch", "mae", "align", "distill", "words", "shade"]
    assert block["rows"][-1]["agreement"][1] is None
    cell = block["rows"][0]["agreement"][1]
    assert cell["objects"] == 30  # the limit in SETTINGS
    assert cell["chance"] == pytest.approx(1000 / 29)
    words, shade = block["rows"][-2]["agreement"][1], block["rows"][-1]["agreement"][0]
    assert words["overlap"] == pytest.approx(shade["overlap"])
    assert words["cka"] == pytest.approx(shade["cka"])


def test_views_and_captions_show_scores_captioner_and_what_was_rejected(made: Made) -> None:
    content, page, folder, _ = made
    (block,) = content["multimodal"]["views"]
    assert block["views"]["layout"] == "openshape12"
    assert block["views"]["rejected"] == 1
    assert block["captions"]["captioner"] == "offline"
    assert len(block["objects"]) == 4
    assert all((folder / row["image"]).is_file() for row in block["objects"])
    assert [caption["ok"] for caption in block["objects"][0]["captions"]] == [True, True, False]
    text = " ".join(page.text)
    assert "on <white> ground" in text
    assert "0.310" in text
    assert "not used" in text
    assert "on <white>" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("digest", "blocks"), [(None, [True]), ("0" * 64, [False, True])])
def test_captions_are_shown_with_the_views_they_are_from_or_with_any_where_they_are_from_none(
    made: Made, tmp_path: Path, digest: str | None, blocks: list[bool]
) -> None:
    root = Path(shutil.copytree(made[3], tmp_path / "own"))
    path = root / "data" / "captions" / "offline" / "captions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"views_digest": digest}), encoding="utf-8")
    content, _, _ = build(_paths(root), tmp_path / "report")
    found = content["multimodal"]["views"]
    assert [block["views"] is not None for block in found] == blocks
    assert found[0]["captions"] is not None


def test_embedded_teachers_are_called_what_they_are(made: Made) -> None:
    text = " ".join(made[1].text)
    for words in ("bag of words, not a language model", "hand-crafted descriptors", "not comparable with published"):
        assert words in text


def test_steps_are_paired_with_every_pre_training_before_them(made: Made) -> None:
    content = made[0]
    pairs = [(row["table"], row["name"], row["other"]) for row in content["steps"]]
    assert pairs == [
        ("finetune", "align", "mae"),
        ("finetune", "distill", "mae"),
        ("finetune", "distill", "align"),
        ("svm", "distill", "mae"),
    ]
    rows = {row["name"]: row["oa"]["mean"] for row in content["finetune"]}
    assert content["steps"][2]["difference"]["mean"] == pytest.approx(rows["distill"] - rows["align"])
    assert [row["name"] for row in content["finetune"]][-3:] == ["mae", "align", "distill"]


def test_findings_name_text_results_and_one_control_per_encoder(made: Made) -> None:
    content = made[0]
    assert content["headline"] == multimodal_headline(content)
    text = "\n".join(content["headline"])
    assert "Text classification of seen classes: align gives" in text
    assert "distill against align, fine-tuned" in text
    assert "distill against mae, fine-tuned" not in text
    assert text.count("align against scratch") == 1
    assert "few-shot" not in text


def test_text_results_are_among_the_metrics(made: Made) -> None:
    values = headline_metrics(made[0])
    assert values["align/align/seen/top1"] == made[0]["multimodal"]["classification"][0]["top1"]["mean"]
    assert "align/align/held_out/top5" in values


def test_markdown_has_the_same_tables_and_existing_pictures(made: Made) -> None:
    content, _, folder, _ = made
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    for title in ("Classification by text", "Recall", "Text to shape", "Teachers and students", "Views and captions"):
        assert f"### {title}" in markdown
    assert format_spread(content["multimodal"]["classification"][0]["top1"]) in markdown
    pictures = re.findall(r"\]\((thumbnails/[^)]+)\)", markdown)
    assert any("thumbnails/views/" in picture for picture in pictures)
    assert all((folder / picture).is_file() for picture in pictures)


def test_pieces_that_are_gone_or_damaged_leave_their_part_out(made: Made, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made[3], tmp_path / "own"))
    shutil.rmtree(root / "data" / "views")
    shutil.rmtree(root / "results" / "finetune" / "align")
    (root / "data" / "captions" / "offline" / "captions.json").write_text("{", encoding="utf-8")
    (root / "results" / "align" / "align" / "index.npz").write_bytes(b"PK broken")
    content, page, _ = build(_paths(root), tmp_path / "report")
    assert len(content["problems"]) == 2
    assert not content["multimodal"]["views"]
    assert not content["multimodal"]["queries"]
    assert content["multimodal"]["classification"]
    assert "#views" not in page.addresses
    for folder in ("features", "captions"):
        shutil.rmtree(root / "data" / folder)
    content, page, _ = build(_paths(root), tmp_path / "report")
    assert not content["multimodal"]["teachers"]
    assert "Teachers and students" not in " ".join(page.text)


def test_report_of_the_main_job_has_none_of_it(tmp_path: Path) -> None:
    from tests.report.fixtures import write_workspace

    content, page, folder = build(write_workspace(tmp_path, num_points=64), tmp_path / "report")
    assert content["multimodal"] is None
    assert content["steps"] == []
    text = " ".join(page.text) + (folder / "report.md").read_text(encoding="utf-8")
    for words in ("Words and shapes", "Teachers and students", "Views and captions", "Each step", "Alignment loss"):
        assert words not in text


def test_near_is_dark_and_background_white() -> None:
    depth = np.array([[0.0, 2.0], [2.5, 3.0]], dtype=np.float32)
    shade = depth_shade(depth)[..., 0]
    assert shade[0, 0] == 255
    assert shade[0, 1] < shade[1, 0] < shade[1, 1] < 255


def _paths(root: Path) -> dict[str, Path]:
    return {
        "dataset": root / "data" / "objects",
        "data": root / "data",
        "models": root / "models",
        "results": root / "results",
        "runs": root / "reports",
    }
