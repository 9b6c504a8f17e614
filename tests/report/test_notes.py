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


def test_few_shot_without_enough_objects_is_told_and_otherwise_not() -> None:
    few = {"way": 5, "shot": 10, "query": 10, "episodes": 30, "C": 0.1}

    def notes(eligible: dict[str, int]) -> str:
        return " ".join(reading_notes(content(protocols={"probe mae": {"few_shot": few | eligible}})))

    told = "Few-shot, 5-way 10-shot, was left out: 3 classes have 10 training and 10 test objects, 5 are needed."
    assert told in notes({"eligible_classes": 3})
    assert "left out" not in notes({"eligible_classes": 5})
    assert "left out" not in notes({}), "results from before it was counted"


def test_shares_that_keep_every_class_are_told_where_they_are_larger_than_named() -> None:
    rows = [row("mae", fraction=share, num_train=number) for share, number in ((0.1, 16), (0.5, 51), (1.0, 100))]
    found = [note for note in reading_notes(content(low_label=rows)) if "larger than named" in note]
    assert len(found) == 1
    assert found[0].endswith("larger than named: 10 % are 16 of 100.")


def test_labels_without_anything_to_test_say_so_and_explain_no_intervals() -> None:
    data = {"labelled": True, "notes": ["Categories without a test object (2): a, b."]}
    found = reading_notes(content(finetune=[], dataset=data))
    assert "nothing to compare" in found[0]
    assert found[1:] == data["notes"]


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
