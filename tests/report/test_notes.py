"""Notes on how to read a report say what was done for these numbers and nothing else."""

from typing import Any

import numpy as np
import pytest

from pointloom.report.charts import log_ticks
from pointloom.report.notes import reading_notes
from pointloom.report.scene_notes import scene_notes

BOOTSTRAP = {"resamples": 2000, "confidence": 0.95, "seed": 0}


def row(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "seeds": 3, "oa": {"mean": 60.0, "std": 1.0}, "oa_vote": None, "selection": "last",
        "seed_covers": "head", "trained": False, "epochs": 24, "repeat": "seed", "protocol": "svm",
    } | more  # fmt: skip


def content(**more: Any) -> dict[str, Any]:
    return {
        "dataset": {"labelled": True}, "finetune": [row("scratch")], "probe": [], "num_test": 100,
        "standard_error": 4.9, "standard_error_at": 60.0, "bootstrap": BOOTSTRAP, "comparisons": [],
        "multimodal": None, "low_label": [], "protocols": {"finetune scratch": {"votes": 5, "num_points": 1024}},
    } | more  # fmt: skip


def test_number_of_draws_and_points_is_told_where_all_results_agree() -> None:
    voted = row("scratch", oa_vote={"mean": 61.0, "std": 1.0})
    same = content(finetune=[voted])
    assert any("5 random draws of 1,024 points of each test object" in note for note in reading_notes(same))
    once = same | {"protocols": {"finetune scratch": {"votes": 1, "num_points": 1024}}}
    assert any("tested once, on its farthest points" in note for note in reading_notes(once))
    same["protocols"]["finetune other"] = {"votes": 10, "num_points": 1024}
    assert any("mean over random draws of the points of each test object" in note for note in reading_notes(same))


@pytest.mark.parametrize(
    ("svm", "expected"),
    [
        ({"C": [0.1, 1.0], "folds": 3, "protocol": "ours"}, "chosen among 0.1, 1 by 3-fold cross-validation"),
        ({"C": [0.01], "folds": 3, "protocol": "official"}, "C is 0.01, as in the official code"),
    ],
)
def test_choice_of_the_svms_c_is_told(svm: dict[str, Any], expected: str) -> None:
    found = reading_notes(content(protocols={"probe mae": {"svm": svm}}))
    assert sum(expected in note for note in found) == 1


def test_different_seeds_and_epochs_are_told_only_where_they_differ() -> None:
    few, other = "the seeds that both have", "different numbers of epochs"
    plain = " ".join(reading_notes(content(low_label=[row("mae", fraction=0.1), row("mae", fraction=1.0)])))
    assert few not in plain
    assert other not in plain
    uneven = content(
        finetune=[row("scratch"), row("scratch_long", seeds=1)],
        low_label=[row("mae", fraction=0.1, epochs=20), row("mae", fraction=1.0)],
    )
    assert few in " ".join(reading_notes(uneven))
    assert other in " ".join(reading_notes(uneven))


def test_notes_on_scenes_name_the_protocol_of_segmentation_and_the_share_of_compute() -> None:
    protocol = {"protocol": "precise", "tta": "scannet", "voxel_size": 0.02, "selection": "last", "seed_covers": "head"}
    rows = [row("scratch", fraction=1.0), row("mm3dscene", fraction=1.0, trained=True)]
    found = " ".join(scene_notes(rows, [protocol], bootstrap=BOOTSTRAP, num_test=1))
    assert "The test set has 1 scene." in found
    assert "every point is seen at least once), voxels of 2 cm, test-time augmentation as for scannet" in found
    assert "has had more compute" in found
    frozen = [row("mm3dscene", fraction=1.0, trained=True, epochs=None)]
    alone = " ".join(scene_notes(frozen, [{"seed_covers": "heads"}], bootstrap=BOOTSTRAP, num_test=1))
    assert "compute" not in alone
    assert "Segmentation was tested" not in alone
    assert scene_notes([], [], bootstrap=BOOTSTRAP, num_test=1) == []


def test_narrow_logarithmic_axes_have_ticks() -> None:
    assert {0.005, 0.01} <= set(log_ticks(np.array([0.004, 0.011])))
    assert log_ticks(np.array([0.0406, 0.0418])) == pytest.approx([0.0406, 0.0412, 0.0418])
    assert log_ticks(np.array([np.nan, 0.0])) == []
