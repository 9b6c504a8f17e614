import pickle
from pathlib import Path

import numpy as np
import pytest

from pointloom.errors import ParamsError
from pointloom.stages.prepare import PrepareParams
from pointloom.stages.prepare_plan import plan_prepare

BASE = {"num_objects": 12, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0, "test_fraction": 0.25, "up": "auto"}
BASE |= {"max_failure_ratio": 0, "num_workers": 3}


def params(**changes: object) -> PrepareParams:
    return PrepareParams.model_validate(BASE | changes)


@pytest.fixture
def shapenet(tmp_path: Path) -> Path:
    """ShapeNet55-34 with one shape per list."""
    (tmp_path / "shapenet_pc").mkdir()
    (tmp_path / "ShapeNet-55").mkdir()
    for split, name in (("train", "02691156-a.npy"), ("test", "03001627-b.npy")):
        (tmp_path / "ShapeNet-55" / f"{split}.txt").write_text(name)
        np.save(tmp_path / "shapenet_pc" / name, np.eye(3, dtype=np.float32))
    return tmp_path


def test_settings_of_generated_objects_are_what_they_were_before_data_sets_came(tmp_path: Path) -> None:
    """They are part of the digest of every store, so a new name would make all results out of date."""
    settings = plan_prepare(params(source="synthetic"), tmp_path).settings
    assert settings == {
        **{"source": "synthetic", "unlabelled_synthetic": 0, "num_points": 64, "seed": 0},
        **{"test_fraction": 0.25, "up": "auto"},
    }


def test_parameters_without_a_variant_keep_their_digest() -> None:
    values = params(source="folder").model_dump()
    assert "variant" not in values
    assert values.keys() >= {"train_list", "max_file_mb"}
    assert params(source="s3dis", variant="npy").model_dump()["variant"] == "npy"


def test_a_data_set_brings_its_own_classes_split_and_conventions(shapenet: Path) -> None:
    plan = plan_prepare(params(source="shapenet55", variant="train_test"), shapenet)
    assert plan.classes == ("airplane", "chair")
    assert [o.split for o in plan.listing.objects] == ["train", "test"]
    assert plan.settings["loader_transform"] == "unit_sphere"
    assert plan.num_workers == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "shapenet55"}, "has the variants train_test, whole; got none"),
        ({"source": "shapenet55", "variant": "34"}, "has the variants train_test, whole; got '34'"),
        ({"source": "synthetic", "variant": "h5"}, "synthetic has no variants, got 'h5'"),
        ({"source": "shapenet55", "variant": "whole", "unlabelled_synthetic": 4}, "unlabelled_synthetic must be 0"),
        ({"source": "shapenet55", "variant": "whole", "test_list": "x", "train_list": "y"}, "must be absent"),
    ],
)
def test_parameters_that_do_not_fit_the_source_are_refused(
    shapenet: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        plan_prepare(params(**changes), shapenet)


def test_a_layout_that_must_be_read_whole_gets_one_process(tmp_path: Path) -> None:
    for split in ("train", "test"):
        content = [[np.zeros((4, 6), dtype=np.float32)], [np.array([3], dtype=np.int32)]]
        (tmp_path / f"modelnet40_{split}_8192pts_fps.dat").write_bytes(pickle.dumps(content))
    assert plan_prepare(params(source="modelnet40", variant="dat"), tmp_path).num_workers == 1
