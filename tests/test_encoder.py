"""``pointloom.load_encoder``: what a user does in three lines."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pointloom
from pointloom.errors import CheckpointError, DataError
from pointloom.models import build_encoder
from pointloom.train.checkpoint import save_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    target = tmp_path_factory.mktemp("encoder")
    save_encoder(
        target, build_encoder("point_mae_tiny"), builder="point_mae_tiny", builder_args={}, method="mae",
        labels="none", num_points=64, data_digest=None, params={},
    )  # fmt: skip
    return target


def test_features_do_not_depend_on_place_size_or_batching(folder: Path) -> None:
    encoder = pointloom.load_encoder(folder)
    points = np.random.default_rng(0).normal(size=(3, 100, 3))
    features = encoder.encode(points)
    assert features.shape == (3, 384)
    assert features.dtype == np.float32
    assert np.allclose(features, encoder.encode(points * 7 + 3), atol=1e-3)
    assert np.allclose(features[1:2], encoder.encode(points[1]), atol=1e-4)


def test_every_point_gets_a_feature(folder: Path) -> None:
    features = pointloom.load_encoder(str(folder)).encode_points(np.random.default_rng(0).normal(size=(64, 3)))
    assert features.shape == (1, 64, 192)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((64, 2)), "shape"),
        (np.zeros((10, 3)), "at least 64 points"),
        (np.full((64, 3), np.nan), "finite"),
        (np.ones((2, 64, 3)), "same place"),
    ],
)
def test_bad_points_are_refused_with_a_reason(folder: Path, points: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pointloom.load_encoder(folder).encode(points)


def test_inside_a_workspace_the_name_of_an_encoder_is_enough(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mae").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    points = np.random.default_rng(0).random((1, 300, 3))
    found, expected = (pointloom.load_encoder(name).encode(points) for name in ("mae", folder))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(CheckpointError, match=r"msm.*holds no encoder"):
        pointloom.load_encoder("msm")


def test_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no encoder"):
        pointloom.load_encoder(tmp_path / "nothing")
