"""The multimodal chain on generated shapes: killed where it hurts, finished, repeated, searched, stopped by a typo."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from pointloom.data.captions import CaptionStore
from pointloom.data.features import FeatureStore
from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.run import stage_records
from tests.e2e.processes import RunningPipeline, pointloom

pytestmark = pytest.mark.slow


@dataclass
class Story:
    """What happened to one workspace, step by step.

    Attributes:
        workspace: The workspace, finished at the end.
        code: Exit code of each step.
        text: Output of each step.
    """

    workspace: Path
    code: dict[str, int] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)


def kill(told: Story, stage: str, log: Path, *, begun: Callable[[Path], bool]) -> None:
    """Kill a stage with SIGKILL when its state folder shows that it has begun its work."""
    run = RunningPipeline(told.workspace, log)
    run.wait_for(lambda: begun(told.workspace / "state" / stage) and run.stage_process(stage))
    process = run.stage_process(stage)
    assert process is not None
    process.kill()
    told.code[stage], told.text[stage] = run.finish(), run.text


def has_rendered(state: Path) -> bool:
    return any(path.stat().st_size > 0 for path in state.rglob("views.journal"))


def has_entered(state: Path) -> bool:
    return any(state.rglob("shaped_by.json"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One run that is killed twice, finished and repeated; made once because it takes minutes."""
    base = tmp_path_factory.mktemp("multimodal")
    told = Story(base / "my shapes")
    arguments = ["init", str(told.workspace), "--pipeline", "multimodal", "--profile", "smoke"]
    assert pointloom(*arguments, cwd=base).returncode == 0
    kill(told, "render", base / "log", begun=has_rendered)
    kill(told, "align", base / "log", begun=has_entered)
    for step in ("finish", "again"):
        done = pointloom("run", "--workspace", str(told.workspace), cwd=base, seconds=1800)
        told.code[step], told.text[step] = done.returncode, done.stdout + done.stderr
    return told


def executed(text: str) -> list[str]:
    return [line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage '")]


def asked_for(workspace: Path) -> list[str]:
    """Every stage that the parameters ask for, under DVC's names."""
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    graph = yaml.safe_load((workspace / "dvc.yaml").read_text())["stages"]
    names = []
    for stage in graph:
        names += [f"{stage}@{entry}" for entry in params[stage]] if "foreach" in graph[stage] else [stage]
    return names


@pytest.mark.parametrize(("stage", "name"), [("render", "render@views"), ("align", "align@align")])
def test_killed_stage_is_an_error_that_names_it(story: Story, stage: str, name: str) -> None:
    assert story.code[stage] == 2
    assert executed(story.text[stage])[-1] == name
    assert "continues from there" in story.text[stage]


def test_next_run_continues_rendering_and_repeats_nothing_that_was_finished(story: Story) -> None:
    assert story.code["finish"] == 0, story.text["finish"]
    assert "going on where the last run stopped" in story.text["align"]
    done = [
        *executed(story.text["render"])[:-1],
        *executed(story.text["align"])[:-1],
        *executed(story.text["finish"]),
    ]
    assert sorted(done) == sorted(asked_for(story.workspace))


def test_run_of_a_finished_workspace_does_nothing(story: Story) -> None:
    assert story.code["again"] == 0
    assert executed(story.text["again"]) == []


def test_every_stage_left_a_record_and_nothing_unfinished(story: Story) -> None:
    records = stage_records(story.workspace)
    assert sorted(records) == sorted(name.replace("@", "/") for name in asked_for(story.workspace))
    assert len({record["run"]["data_digest"] for name, record in records.items() if name != "prepare"}) == 1
    for folder in ("data", "models", "results"):
        assert not [path for path in (story.workspace / folder).rglob(".*") if path.name != ".gitignore"]


def test_views_captions_and_features_belong_to_the_prepared_objects(story: Story) -> None:
    data = story.workspace / "data"
    store = ObjectStore(data / "objects")
    digest = store.info.digest
    views = ViewStore(data / "views" / "views", dataset_digest=digest)
    captions = CaptionStore(data / "captions" / "offline", dataset_digest=digest)
    features = FeatureStore(data / "features" / "offline", dataset_digest=digest)
    assert list(views.uids) == list(features.uids) == list(store.uids)
    assert views.valid.mean() > 0.99
    assert all(captions.top(uid) for uid in store.uids)


def test_aligned_classes_and_held_out_classes_are_scored_apart(story: Story) -> None:
    result = json.loads((story.workspace / "results" / "align" / "align" / "result.json").read_text())
    held_out = result["protocol"]["held_out"]
    store = ObjectStore(story.workspace / "data" / "objects")
    taking_part = ~np.isin(store.categories[store.rows("train")], held_out)
    assert len(held_out) == 4
    assert result["protocol"]["num_aligned"] <= taking_part.sum()
    page = (story.workspace / "report" / "report.md").read_text()
    assert "captions" in page
    assert all(name in page for name in ("mae", "align", "distill"))


def test_words_find_shapes(story: Story, tmp_path: Path) -> None:
    found = pointloom("search", "a round table", "--in", str(story.workspace), "--output", str(tmp_path), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    (page,) = tmp_path.rglob("search.html")
    assert "table" in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("typo", "message", "runs"),
    [
        ("held_uot: 4", "did you mean 'held_out'", []),
        ("held_out: 4.5", "got 4.5", []),
        ("held_out: [tabel]", "no class 'tabel'", ["align@align"]),
    ],
)
def test_typo_about_held_out_classes_is_explained(story: Story, typo: str, message: str, runs: list[str]) -> None:
    file = story.workspace / "params.yaml"
    text = file.read_text()
    file.write_text(text.replace("held_out: 4", typo))
    done = pointloom("run", "--workspace", str(story.workspace), cwd=story.workspace)
    file.write_text(text)
    assert done.returncode == 2
    assert message in done.stderr
    assert executed(done.stdout + done.stderr) == runs


def test_entry_that_names_nothing_stops_before_anything_runs(story: Story) -> None:
    file = story.workspace / "params.yaml"
    text = file.read_text()
    file.write_text(text.replace("features: offline", "features: ofline"))
    done = pointloom("run", "--workspace", str(story.workspace), cwd=story.workspace)
    file.write_text(text)
    assert done.returncode == 2
    assert "did you mean 'offline'" in done.stderr
    assert executed(done.stdout) == []
