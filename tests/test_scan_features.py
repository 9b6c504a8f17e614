"""Features of a scan from the command line: files, labels of another scan, unusable input."""

import re
from pathlib import Path

import numpy as np
import pytest
import trimesh

import pointloom
from pointloom.data.scenes import Scene
from pointloom.data.synthetic_rooms import synthetic_scenes
from pointloom.errors import CheckpointError, DataError
from pointloom.scan_features import Labelled, ScanOptions, write_scan_features
from pointloom.stages.pretrain_methods.untrained import UntrainedParams, write_untrained


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    params = {"method": "untrained", "encoder": "hunet_tiny", "encoder_args": {}, "num_points": 4096, "seed": 0}
    write_untrained(UntrainedParams.model_validate(params), folder)
    return folder


@pytest.fixture(scope="module")
def room() -> Scene:
    return next(synthetic_scenes(1, seed=3, num_points=4096))


@pytest.fixture
def scan(room: Scene, tmp_path: Path) -> Path:
    path = tmp_path / "room.ply"
    trimesh.PointCloud(room.coord, colors=room.color).export(path)
    return path


def test_every_point_gets_a_feature_and_a_colour(encoder: Path, room: Scene, scan: Path, tmp_path: Path) -> None:
    made = write_scan_features(scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions())
    with np.load(tmp_path / "out" / "features.npz") as found:
        assert made == {"points": len(room.coord), "channels": found["feature"].shape[1]}
        np.testing.assert_allclose(found["coord"], room.coord, atol=1e-5)
        assert np.isfinite(found["feature"]).all()
        colors = found["pca"]
    cloud = trimesh.load(tmp_path / "out" / "pca.ply")
    np.testing.assert_array_equal(cloud.colors[:, :3], colors)  # type: ignore[union-attr]
    page = (tmp_path / "out" / "view.html").read_text()
    assert "room.ply" in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.http", page)


def test_labels_come_back_from_the_same_scan(encoder: Path, room: Scene, scan: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.npy"
    np.save(labels, room.segment.astype(np.int64))
    write_scan_features(
        scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions(), labelled=Labelled(scan, labels)
    )
    with np.load(tmp_path / "out" / "features.npz") as found:
        right = found["label"] == room.segment
    assert right[room.segment >= 0].mean() > 0.7  # the rest are super-points that hold two classes


def test_python_gets_the_same_features(encoder: Path, room: Scene, scan: Path, tmp_path: Path) -> None:
    write_scan_features(scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions())
    loaded = pointloom.load_encoder(encoder)
    assert isinstance(loaded, pointloom.PretrainedSceneEncoder)
    feature = loaded.encode(room.coord, room.color)
    with np.load(tmp_path / "out" / "features.npz") as found:
        np.testing.assert_allclose(found["feature"].astype(np.float32), feature, atol=2e-2, rtol=1e-2)
    assert room.color is not None
    with pytest.raises(DataError, match=r"expected color of the shape of the points"):
        loaded.encode(room.coord, room.color[1:])
    with pytest.raises(DataError, match=r"expected color as uint8, 0 to 255, got float32 from .* to 1\.0"):
        loaded.encode(room.coord, (room.color / room.color.max()).astype(np.float32))
    with pytest.raises(DataError, match="normals must be finite"):
        loaded.encode(room.coord, normal=np.full_like(room.coord, np.nan))


def test_features_do_not_depend_on_the_origin_or_on_the_blocks_they_are_spread_in(
    encoder: Path, room: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = pointloom.load_encoder(encoder)
    assert isinstance(loaded, pointloom.PretrainedSceneEncoder)
    coord = room.coord.astype(np.float64)
    feature = loaded.encode(coord, room.color, room.normal)
    on_a_map = loaded.encode(coord + np.array([500_000, 4_000_000, 100]), room.color, room.normal)
    assert np.isclose(on_a_map, feature, atol=1e-2, rtol=1e-2).mean() > 0.8  # some points are on borders of voxels
    monkeypatch.setattr("pointloom.encoder.ROWS", 1000)
    np.testing.assert_allclose(loaded.encode(coord, room.color, room.normal), feature, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(5, dtype=np.int64), "4096 points"),
        (np.zeros(4096), "float64"),
        (np.full(4096, -1), "not a single point"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    encoder: Path, scan: Path, tmp_path: Path, labels: "np.ndarray", message: str
) -> None:
    np.save(tmp_path / "labels.npy", labels)
    labelled = Labelled(scan, tmp_path / "labels.npy")
    with pytest.raises(DataError, match=message):
        write_scan_features(
            scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions(), labelled=labelled
        )
    assert not (tmp_path / "out").exists()


def test_labels_may_be_any_numbers(encoder: Path, room: Scene, scan: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.npy"
    np.save(labels, np.where(room.segment >= 0, room.segment.astype(np.int64) * 2**40, -100))
    write_scan_features(
        scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions(), labelled=Labelled(scan, labels)
    )
    with np.load(tmp_path / "out" / "features.npz") as found:
        right = found["label"] == room.segment.astype(np.int64) * 2**40
    assert right[room.segment >= 0].mean() > 0.7


def test_files_that_are_no_labels_and_no_folder_are_refused(encoder: Path, scan: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", labels=np.zeros(4096, dtype=np.int64))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, message in (("labels.npz", "several arrays"), ("empty.npy", "cannot be read as npy")):
        with pytest.raises(DataError, match=message):
            write_scan_features(
                scan, encoder=str(encoder), output=tmp_path / "out", options=ScanOptions(),
                labelled=Labelled(scan, tmp_path / name),
            )  # fmt: skip
    with pytest.raises(DataError, match=r"empty\.npy is a file; give a folder"):
        write_scan_features(scan, encoder=str(encoder), output=tmp_path / "empty.npy", options=ScanOptions())


def test_scan_in_kilometres_is_recognised(encoder: Path, room: Scene, tmp_path: Path) -> None:
    np.save(tmp_path / "room.npy", room.coord / 1000)
    with pytest.raises(DataError, match=r"is 0\.0\d+ m long, a voxel of this encoder 0\.05 m.*--meters"):
        write_scan_features(tmp_path / "room.npy", encoder=str(encoder), output=tmp_path / "out", options=ScanOptions())


def test_scan_in_millimetres_is_recognised(encoder: Path, room: Scene, tmp_path: Path) -> None:
    np.save(tmp_path / "room.npy", 1000 * room.coord)
    with pytest.raises(DataError, match=r"--meters 0\.001"):
        write_scan_features(tmp_path / "room.npy", encoder=str(encoder), output=tmp_path / "out", options=ScanOptions())


def test_missing_scan_and_encoder_of_objects_are_refused(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mae"
    params = {"method": "untrained", "encoder": "point_mae_tiny", "encoder_args": {}, "num_points": 256, "seed": 0}
    write_untrained(UntrainedParams.model_validate(params), folder)
    with pytest.raises(CheckpointError, match="encoder of objects"):
        write_scan_features(scan, encoder=str(folder), output=tmp_path / "out", options=ScanOptions())
    with pytest.raises(CheckpointError, match="holds no encoder"):
        write_scan_features(scan, encoder=str(tmp_path), output=tmp_path / "out", options=ScanOptions())
