from collections.abc import Callable
from pathlib import Path

import pytest

from pointloom.data.scene_store import SceneStore
from pointloom.data.shards import ObjectStore
from pointloom.stages.prepare import PrepareParams, prepare_store


@pytest.fixture
def derived(shared: Path) -> Path:
    """Real shapes in the field's own layouts."""
    return shared / "data" / "derived"


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., ObjectStore]:
    """Prepare a data set with one worker and open the store."""

    def prepare(source: str, folder: Path, **changes: object) -> ObjectStore:
        values = {"num_objects": 0, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0, "test_fraction": 0.25}
        params = PrepareParams.model_validate(
            {"source": source, "up": "auto", "max_failure_ratio": 0, "num_workers": 1} | values | changes
        )
        prepare_store(params, source=folder, dataset=tmp_path / "store", state=tmp_path / "state")
        return ObjectStore(tmp_path / "store")

    return prepare


@pytest.fixture
def prepared_scenes(tmp_path: Path) -> Callable[..., SceneStore]:
    """Prepare a data set of scenes and open the store."""

    def prepare(source: str, folder: Path, **changes: object) -> SceneStore:
        values = {"num_objects": 0, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0, "test_fraction": 0.25}
        values |= {"source": source, "up": "auto", "max_failure_ratio": 0}
        params = PrepareParams.model_validate(values | changes)
        prepare_store(params, source=folder, dataset=tmp_path / "store", state=tmp_path / "state")
        return SceneStore(tmp_path / "store")

    return prepare
