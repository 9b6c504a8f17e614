"""Point-MAE, Point-M2AE and Point-PQAE side by side on generated shapes: every stage once, fair comparisons."""

import json

import pytest

from pointloom.run import stage_records
from tests.e2e.stories import Story, executed, run_twice

pytestmark = pytest.mark.slow

METHODS = ("mae", "m2ae", "pqae")
STAGES_OF_SMOKE = {
    "prepare",
    *(f"pretrain@{name}" for name in ("scratch", "scratch_m2ae", "pointnet", *METHODS)),
    *(f"finetune@{name}" for name in ("pointnet", "scratch", "scratch_m2ae", *METHODS)),
    *(f"probe@{name}" for name in ("random", "random_m2ae", *METHODS)),
    "report",
}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return run_twice(tmp_path_factory.mktemp("systems"), "systems")


def test_every_stage_runs_once(story: Story) -> None:
    assert story.first.returncode == 0, story.first.stdout + story.first.stderr
    assert sorted(executed(story.first)) == sorted(STAGES_OF_SMOKE)
    assert sorted(stage_records(story.workspace)) == sorted(name.replace("@", "/") for name in STAGES_OF_SMOKE)


def test_second_run_does_nothing(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stderr
    assert executed(story.again) == []


@pytest.mark.parametrize("method", METHODS)
def test_encoder_of_every_method_is_trained_without_labels_and_shows_reconstructions(story: Story, method: str) -> None:
    card = json.loads((story.workspace / "models" / method / "encoder.json").read_text())
    assert (card["method"], card["labels"]) == (method, "none")
    assert len(story.content()["reconstructions"][method]) > 0


@pytest.mark.parametrize(("table", "random"), [("finetune", "scratch"), ("low_label", "scratch"), ("probe", "random")])
def test_rows_are_compared_with_their_own_architecture(story: Story, table: str, random: str) -> None:
    rows = story.content()[table]
    models = {row["name"]: row["model"] for row in rows}
    pairs = {row["name"]: row["baseline"] for row in rows if row["trained"]}
    assert pairs == {"mae": random, "pqae": random, "m2ae": f"{random}_m2ae"}
    assert all(models[name] == models[other] for name, other in pairs.items())
