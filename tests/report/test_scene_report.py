"""The report on scenes: tables from results, paired differences, a page that holds the numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from pointloom.data.scene_store import write_scenes
from pointloom.data.scenes import Scene
from pointloom.report.build import ReportSettings
from pointloom.report.inputs import load_scene_inputs
from pointloom.report.outcomes import BootstrapSettings
from pointloom.report.scene_build import build_scene_report
from pointloom.report.scene_tables import miou_difference, seed_difference
from pointloom.tasks.box_matches import match_boxes
from pointloom.tasks.detection_scores import FoundBoxes, TrueBoxes, detection_scores
from pointloom.tasks.scene_segmentation import scene_scores

BOOTSTRAP = BootstrapSettings(resamples=300, confidence=0.95, seed=0)
CLASSES = ("wall", "chair")


def confusion(rng: np.random.Generator, skill: int, shape: tuple[int, int] = (3, 5)) -> NDArray[np.int64]:
    """Counts of every seed and scene; ``skill`` more right points per class."""
    return rng.integers(5, 20, size=(*shape, 2, 2)) + skill * np.eye(2, dtype=np.int64)


def scene(name: str, split: str) -> Scene:
    rng = np.random.default_rng(len(name))
    num = 40
    return Scene(
        name=name,
        coord=rng.random((num, 3)).astype(np.float32),
        color=rng.integers(255, size=(num, 3), dtype=np.uint8),
        normal=None, segment=rng.integers(2, size=num).astype(np.int16), instance=np.zeros(num, dtype=np.int32),
        split=split,
    )  # fmt: skip


def write_result(folder: Path, digest: str, *, task: str, method: str, counts: NDArray[np.int64], **more: Any) -> None:
    scores = [scene_scores(each.sum(0)) for each in counts]
    runs = [
        {"seed": seed, "fraction": 0.2, "miou": s.miou, "macc": s.macc, "oa": s.oa,
         "classes": dict(zip(CLASSES, s.iou.tolist(), strict=True))} | more
        for seed, s in enumerate(scores)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    encoder = {"builder": "point_transformer_tiny", "method": method, "labels": "none", "sha256": "0"}
    data = {"digest": digest, "classes": list(CLASSES)}
    content = {"task": task, "encoder": encoder, "data": data, "protocol": {"test": "all points"}, "runs": runs}
    (folder / "result.json").write_text(json.dumps(content))
    np.savez(folder / "predictions.npz", confusion=counts)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    store = tmp_path / "data"
    info = write_scenes(
        store, [scene("a", "train"), scene("bb", "test")], classes=CLASSES, box_classes=(), source="test", settings={}
    )  # fmt: skip
    rng = np.random.default_rng(0)
    plain, better = confusion(rng, 0), confusion(rng, 40)
    results = tmp_path / "results"
    write_result(
        results / "finetune" / "scratch", info.digest, task="scene_segmentation", method="untrained", counts=plain
    )
    write_result(results / "finetune" / "msm", info.digest, task="scene_segmentation", method="msm", counts=better)
    write_result(
        results / "probe" / "msm", info.digest, task="scene_probe", method="msm", counts=better, protocol="linear"
    )
    return {"dataset": store, "models": tmp_path / "models", "results": results, "runs": tmp_path / "runs"}


def settings() -> ReportSettings:
    return ReportSettings(
        title="Rooms", baseline="scratch", probe_baseline="random", detail=[], bootstrap=BOOTSTRAP, seed=0,
        tsne_objects=3, queries=0, viewer_objects=0, thumbnail_size=32,
    )  # fmt: skip


def test_page_holds_tables_with_paired_differences_and_no_links(paths: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    content = build_scene_report(load_scene_inputs(**paths), folder, settings())
    rows = {(row["name"], row["protocol"]): row for row in content["rows"]}
    assert list(rows) == [("scratch", "scene_segmentation"), ("msm", "scene_segmentation"), ("msm", "linear")]
    tuned, base = rows["msm", "scene_segmentation"], rows["scratch", "scene_segmentation"]
    gain = tuned["values"]["miou"]["mean"] - base["values"]["miou"]["mean"]
    assert tuned["difference"]["mean"] == pytest.approx(gain)
    assert tuned["difference"]["verdict"] == "better"
    assert (base["is_baseline"], base["difference"], rows["msm", "linear"]["difference"]) == (True, None, None)
    page = (folder / "report.html").read_text()
    assert f"{tuned['values']['miou']['mean']:.1f}" in page
    assert "20 %" in page
    assert "http" not in page.replace("http://www.w3.org", "").partition("</style>")[0]
    assert json.loads((folder / "report.json").read_text()) == content
    assert "better" in (folder / "report.md").read_text()
    assert content["problems"] == []


def test_a_teacher_that_says_the_same_everywhere_is_reported(paths: dict[str, Path], tmp_path: Path) -> None:
    for name, last in (("msm", 0.45), ("broken", 0.01)):
        (paths["models"] / name).mkdir(parents=True)
        card = {"builder": "hunet_tiny", "method": "msm", "labels": "none", "data_digest": None}
        (paths["models"] / name / "encoder.json").write_text(json.dumps(card))
        lines = ["epoch,loss,std/level1,std/level2", "1,2.0,0.5,0.5", f"2,0.1,0.6,{last}"]
        (paths["models"] / name / "curves.csv").write_text("\n".join(lines))
    (tmp_path / "report").mkdir()
    content = build_scene_report(load_scene_inputs(**paths), tmp_path / "report", settings())
    notes = [note for note in content["notes"] if "ollapse" in note]
    assert notes[0].startswith("broken has collapsed")
    assert notes[1] == (
        "No collapse in msm: the spread of its teacher's features ended at 90 % of that of the first epoch at "
        "resolution 2, the least of all."
    )
    assert "broken has collapsed" in (tmp_path / "report" / "report.html").read_text()


def test_detection_is_paired_over_seeds_within_each_share_of_labelled_scenes(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    digest = json.loads((paths["dataset"] / "dataset.json").read_text())["digest"]
    scores = {"votenet": {1.0: [50.0, 52.0, 51.0], 0.1: [10.0, 14.0, 12.0]},
              "tuned": {1.0: [53.0, 51.0, 55.0], 0.1: [18.0, 21.0, 22.0]}}  # fmt: skip
    for name, shares in scores.items():
        folder = paths["results"] / "finetune" / name
        write_result(
            folder, digest, task="detection", method="untrained", counts=confusion(np.random.default_rng(0), 0)
        )
        card = json.loads((folder / "result.json").read_text())
        if name == "tuned":
            card["encoder"]["method"] = "mm3dscene"
        card["runs"] = [
            {"seed": seed, "fraction": share, "ap25": ap25, "ap50": ap25 / 2, "ar25": 60.0, "ar50": 30.0, "classes": {}}
            for share, values in shares.items() for seed, ap25 in reversed(list(enumerate(values)))
        ]  # fmt: skip
        (folder / "result.json").write_text(json.dumps(card))
        (folder / "predictions.npz").unlink()
    (tmp_path / "report").mkdir()
    content = build_scene_report(
        load_scene_inputs(**paths), tmp_path / "report", replace(settings(), baselines={"tuned": "votenet"})
    )
    rows = {row["fraction"]: row for row in content["rows"] if row["name"] == "tuned"}
    assert list(rows) == [1.0, 0.1]
    for share, row in rows.items():
        interval = ttest_rel(scores["tuned"][share], scores["votenet"][share]).confidence_interval(0.95)
        assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx((interval.low, interval.high))
    told = [line for line in content["headline"] if line.startswith("Detection")]
    assert len(told) == 2
    assert "10 % of the labelled scenes" in told[1]


def boxes_of(rng: np.random.Generator, noise: float, seeds: list[int]) -> dict[str, NDArray[Any]]:
    """Predictions of a detector in six scenes with three unit cubes each: ``noise`` metres off, and as many guesses."""
    true = np.tile(np.array([0, 0, 0, 1, 1, 1, 0], dtype=np.float32), (18, 1))
    true[:, 0] = np.tile([0, 5, 10], 6)
    guess = true + np.array([0, 3, 0, 0, 0, 0, 0], dtype=np.float32)
    off = rng.normal(0, noise, (len(seeds), 36, 7)).astype(np.float32) * (np.arange(7) < 3)
    scene, num = np.repeat(np.arange(6), 3), 36 * len(seeds)
    return {
        "boxes": (np.concatenate([true, guess]) + off.astype(np.float32)).reshape(-1, 7),
        "scene": np.tile(scene, 2 * len(seeds)),
        "score": rng.random((num, 2), dtype=np.float32),
        "seed": np.repeat(seeds, 36),
        "fraction": np.ones(num),
        "true_boxes": true,
        "true_scene": scene,
        "true_label": np.tile([0, 1, 1], 6),
    }


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_boxes_are_paired_over_test_scenes_also_with_one_seed(
    paths: dict[str, Path], tmp_path: Path, seeds: list[int]
) -> None:
    digest = load_scene_inputs(**paths).store.info.digest
    rng = np.random.default_rng(0)
    means = {}
    for name, noise in (("votenet", 0.4), ("tuned", 0.05)):
        folder = paths["results"] / "finetune" / name
        write_result(folder, digest, task="detection", method="untrained", counts=confusion(rng, 0))
        arrays = boxes_of(rng, noise, seeds)
        truth = TrueBoxes(arrays["true_boxes"], arrays["true_label"], arrays["true_scene"])
        matched = match_boxes(FoundBoxes(arrays["boxes"], arrays["score"], arrays["scene"]), truth)
        np.savez(folder / "predictions.npz", **arrays | vars(matched))
        runs = []
        for seed in seeds:
            own = [arrays[key][arrays["seed"] == seed] for key in ("boxes", "score", "scene")]
            scores = detection_scores(match_boxes(FoundBoxes(*own), truth), truth, threshold=0.25)
            runs.append({"seed": seed, "fraction": 1.0, "ap25": scores.mean_ap, "ap50": 0.0, "ar25": 0.0, "ar50": 0.0})
        means[name] = float(np.mean([run["ap25"] for run in runs]))
        card = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(card | {"runs": runs}))
    (tmp_path / "report").mkdir()
    content = build_scene_report(
        load_scene_inputs(**paths), tmp_path / "report", replace(settings(), baselines={"tuned": "votenet"})
    )
    (difference,) = (row["difference"] for row in content["rows"] if row["name"] == "tuned")
    assert difference["mean"] == pytest.approx(means["tuned"] - means["votenet"])
    assert 0 < difference["low"] < difference["mean"] < difference["high"]
    assert (difference["seeds"], difference["objects"]) == (len(seeds), 6)


def test_ablation_table_joins_the_seeds_of_a_row_and_pairs_them_with_the_full_method(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    probes, digest = paths["results"] / "probe", load_scene_inputs(**paths).store.info.digest
    rng = np.random.default_rng(3)
    counts = {name: confusion(rng, skill) for name, skill in (("full", 40), ("other", 0), ("random", 10))}
    for name in ("full", "other"):
        for seed in range(2):
            part = counts[name][seed : seed + 1]
            write_result(
                probes / f"{name}_s{seed}", digest, task="scene_probe", method="msm", counts=part,
                protocol="linear", seed=seed, fraction=1.0,
            )  # fmt: skip
    write_result(
        probes / "random", digest, task="scene_probe", method="untrained", counts=counts["random"][:2],
        protocol="linear", fraction=1.0,
    )  # fmt: skip
    row = {"published": [], "not_built": None, "is_full": False}
    table = {
        "name": "msm-figure8", "title": "Hidden", "source": "A paper", "protocol": "linear", "benchmarks": [],
        "measured": ["linear"], "columns": ["Hidden"], "notes": [], "untrained": "random",
        "rows": [
            row | {"cells": ["20 %"], "entries": ["other_s0", "other_s1"]},
            row | {"cells": ["40 %"], "entries": ["full_s0", "full_s1"], "is_full": True},
        ],
    }  # fmt: skip
    (tmp_path / "report").mkdir()
    content = build_scene_report(
        load_scene_inputs(**paths), tmp_path / "report", replace(settings(), ablation=table)
    )  # fmt: skip
    other, full, untrained = (each["ours"]["linear"] for each in content["ablation"]["rows"])
    miou = {name: [scene_scores(each.sum(0)).miou for each in part[:2]] for name, part in counts.items()}
    assert full == {
        "score": {
            "mean": pytest.approx(np.mean(miou["full"])),
            "std": pytest.approx(np.std(miou["full"], ddof=1)),
            "count": 2,
        },
        "difference": None,
    }
    assert other["difference"]["mean"] == pytest.approx(np.mean(miou["other"]) - np.mean(miou["full"]))
    assert (other["difference"]["verdict"], other["difference"]["seeds"]) == ("worse", 2)
    assert untrained["score"]["mean"] == pytest.approx(np.mean(miou["random"]))
    assert content["headline"][0].startswith("The full method reaches")
    assert "20 %, linear layer, mIoU: " in content["headline"][1]
    assert 'id="ablation"' in (tmp_path / "report" / "report.html").read_text()
    assert "| 20 % |" in (tmp_path / "report" / "report.md").read_text()


def test_few_labelled_points_are_told_and_never_stand_beside_published_values(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    write_scenes(
        paths["dataset"], [scene("a", "train"), scene("bb", "test")], classes=CLASSES, box_classes=(), source="scannet",
        settings={"variant": "classes20"},
    )  # fmt: skip
    digest = load_scene_inputs(**paths).store.info.digest
    counts = confusion(np.random.default_rng(0), 9)
    for name, more in (("all", {}), ("few", {"labelled_points": 20}), ("some", {"levels": [1]})):
        folder = paths["results"] / "probe" / name
        write_result(folder, digest, task="scene_probe", method="msm", counts=counts, protocol="linear", fraction=1.0)
        content = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(content | {"protocol": content["protocol"] | more}))
    frozen = {"task": "detection", "encoder": {"builder": "hunet_tiny"}, "data": {"digest": digest},
              "protocol": {"freeze_encoder": True}, "runs": [{"seed": 0, "ap25": 1.0, "ap50": 1.0}]}  # fmt: skip
    (paths["results"] / "finetune" / "frozen").mkdir()
    (paths["results"] / "finetune" / "frozen" / "result.json").write_text(json.dumps(frozen))
    (tmp_path / "report").mkdir()
    content = build_scene_report(load_scene_inputs(**paths), tmp_path / "report", settings())
    assert {row["name"]: row["labelled_points"] for row in content["rows"]}["few"] == 20
    assert "20 points each" in (tmp_path / "report" / "report.html").read_text()
    assert "100 %, 20 points each |" in (tmp_path / "report" / "report.md").read_text()
    published = {row["name"]: row for row in content["published"]}
    assert set(published) == {"all", "frozen"}
    assert [value["value"] for value in published["frozen"]["published"]] in ([65.6], [40.2])
    write_scenes(
        paths["dataset"], [scene("a", "train"), scene("bb", "test")], classes=CLASSES, box_classes=(), source="scannet",
        settings={"variant": "classes20", "scenes": {"labelled_points": "points20"}},
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    assert build_scene_report(load_scene_inputs(**paths), tmp_path / "other", settings())["published"] == []


def test_result_of_other_data_is_a_problem(paths: dict[str, Path], tmp_path: Path) -> None:
    file = paths["results"] / "finetune" / "msm" / "result.json"
    file.write_text(file.read_text().replace('"digest": "', '"digest": "0'))
    assert "results/finetune/msm" in " ".join(load_scene_inputs(**paths).problems)


def test_miou_difference_is_the_mean_over_seeds_and_its_interval_covers_resampled_scenes() -> None:
    rng = np.random.default_rng(1)
    first, second = (
        np.pad(confusion(rng, skill), ((0, 0), (0, 0), (0, 1), (0, 1))) for skill in (10, 0)
    )  # no third class
    found = miou_difference(first, second, bootstrap=BOOTSTRAP)
    means = [np.mean([scene_scores(seed.sum(0)).miou for seed in counts]) for counts in (first, second)]
    assert found.mean == pytest.approx(means[0] - means[1])
    slow = []
    for _ in range(300):
        scenes, seeds = rng.integers(5, size=5), rng.integers(3, size=3)
        pair = [np.mean([scene_scores(c[s][scenes].sum(0)).miou for s in seeds]) for c in (first, second)]
        slow.append(pair[0] - pair[1])
    assert [found.low, found.high] == pytest.approx(
        np.quantile(slow, [0.025, 0.975]), abs=0.15 * (found.high - found.low)
    )
    same = miou_difference(first, first, bootstrap=BOOTSTRAP)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_seed_difference_has_students_interval() -> None:
    first, second = np.array([61.0, 63.5, 60.2]), np.array([58.0, 59.0, 59.9])
    found = seed_difference(first - second, confidence=0.95)
    interval = ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert seed_difference(np.array([1.0]), confidence=0.95) is None


def test_scans_without_classes_get_a_report_without_accuracies(tmp_path: Path) -> None:
    scan = scene("a", "pretrain")
    scan = replace(scan, segment=np.full_like(scan.segment, -1))
    write_scenes(tmp_path / "data", [scan], classes=(), box_classes=(), source="scans", settings={})
    paths = {name: tmp_path / name for name in ("models", "results", "runs")}
    (tmp_path / "report").mkdir()
    content = build_scene_report(load_scene_inputs(dataset=tmp_path / "data", **paths), tmp_path / "report", settings())
    page = (tmp_path / "report" / "report.html").read_text()
    assert content["rows"] == content["notes"] == []
    assert "The scenes have no classes: everything that needs labels was skipped." in page
    assert "Per class" not in page
