import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import trimesh

from pointloom.data.shards import ObjectStore
from pointloom.data.views import ViewStore
from pointloom.errors import DataError
from pointloom.stages.prepare import PrepareParams, prepare_store
from pointloom.stages.render import RenderParams, render, render_views

PREPARE = {
    "source": "folder",
    "num_objects": 0,
    "unlabelled_synthetic": 0,
    "num_points": 256,
    "seed": 0,
    "test_fraction": 0.0,
    "up": "auto",
    "max_failure_ratio": 1.0,
    "num_workers": 1,
}
BASE = {
    "layout": "openshape12",
    "size": 48,
    "supersample": 2,
    "fov_degrees": 40,
    "renderer": "raycast",  # everywhere the same; what EGL draws is compared in tests/render
    "require_gpu": False,
    "max_failure_ratio": 0.5,
    "num_workers": 1,
}


def params(**changes: object) -> RenderParams:
    return RenderParams.model_validate(BASE | changes)


def prepare(workspace: Path, **changes: object) -> ObjectStore:
    values = PrepareParams.model_validate(PREPARE | changes)
    prepare_store(values, source=workspace / "raw", dataset=workspace / "data/objects", state=workspace / "state")
    return ObjectStore(workspace / "data/objects")


def views_of(workspace: Path, **changes: object) -> ViewStore:
    """Render the store of a workspace and open the result."""
    render_views(
        params(**changes),
        source=workspace / "raw",
        dataset=workspace / "data/objects",
        views=workspace / "data/views/all",
        state=workspace / "state",
    )
    return ViewStore(workspace / "data/views/all")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def _no_tracking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def make_raw(folder: Path) -> None:
    folder.mkdir(parents=True)
    trimesh.creation.box(extents=(1, 2, 3)).export(folder / "box.off")
    trimesh.creation.cone(radius=1, height=2).export(folder / "cone.glb")
    ball = np.random.default_rng(0).normal(size=(2000, 3))
    np.save(folder / "ball.npy", ball / np.linalg.norm(ball, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two meshes, a cloud and three generated objects, prepared and rendered."""
    workspace = tmp_path_factory.mktemp("reference")
    make_raw(workspace / "raw")
    prepare(workspace, unlabelled_synthetic=3)
    views_of(workspace)
    return workspace


def test_meshes_clouds_and_generated_objects_become_views(reference: Path) -> None:
    objects, views = ObjectStore(reference / "data/objects"), ViewStore(reference / "data/views/all")
    assert views.uids.tolist() == objects.uids.tolist()
    assert views.valid.all()
    assert views.info.dataset_digest == objects.info.digest
    for row in range(len(views)):
        depth, rgb = views.depth(row), views.rgb(row)
        np.testing.assert_allclose((depth > 0).mean(axis=(1, 2)), views.coverage[row], atol=1e-4)
        assert (rgb[depth == 0] > 100).mean() > 0.9, "background is white up to the outline"
    assert not list((reference / "state").glob("render/*"))


def test_stored_points_lie_on_what_the_views_show(reference: Path) -> None:
    """Points and views share one frame: a visible point is as deep as the pixel it falls on."""
    objects, views = ObjectStore(reference / "data/objects"), ViewStore(reference / "data/views/all")
    K, poses = views.info.intrinsics, views.info.poses
    for row, uid in enumerate(objects.uids):
        coord = objects.coords(np.array([row]))[0].astype(float)
        for pose, picture in zip(poses, views.depth(views.row_of[str(uid)]), strict=True):
            x, y, z = np.linalg.inv(pose)[:3] @ np.column_stack([coord, np.ones(len(coord))]).T
            column, line, scale = K @ np.stack([x, -y, -z])
            seen = picture[(line / scale).astype(int), (column / scale).astype(int)]
            assert (seen > 0).mean() > 0.7, uid  # thin parts fall between pixels
            assert (np.where(seen > 0, seen + z, 0) < 0.1).mean() > 0.85, "only outlines lie before the surface"
            assert (np.abs(seen + z) < 0.06).mean() > 0.2, uid


def test_a_second_run_gives_the_same_bytes(reference: Path) -> None:
    before = content(reference / "data/views/all")
    views_of(reference, num_workers=2)
    assert content(reference / "data/views/all") == before


def test_the_stage_writes_its_numbers(reference: Path, tmp_path: Path) -> None:
    render(
        params(size=32, supersample=1),
        source=reference / "raw",
        dataset=reference / "data/objects",
        views=tmp_path / "views/small",
        metrics=tmp_path / "render.json",
        state=tmp_path / "state",
    )
    written = json.loads((tmp_path / "render.json").read_text())
    assert written["metrics"]["objects"] == 6
    assert written["metrics"]["views"] == 72
    assert written["metrics"]["quarantined"] == 0
    assert written["run"]["name"] == "small"


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    reference: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(reference / "raw", tmp_path / "raw")
    shutil.copytree(reference / "data/objects", tmp_path / "data/objects")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom pointloom.stages.render import RenderParams, render_views\n"
        "if __name__ == '__main__':\n"
        "    p = Path(sys.argv[1])\n"
        "    values = RenderParams.model_validate_json(sys.argv[2])\n"
        "    render_views(values, source=p / 'raw', dataset=p / 'data/objects', views=p / 'data/views/all',\n"
        "                 state=p / 'state')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(tmp_path), params().model_dump_json()]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not any(j.stat().st_size for j in (tmp_path / "state").glob("render/*/views.journal")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)  # so that it cannot finish before the kill
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not (tmp_path / "data/views/all").exists()
    with caplog.at_level("INFO"):
        views_of(tmp_path)
    assert "of 6 objects are done" in caplog.text
    assert content(tmp_path / "data/views/all") == content(reference / "data/views/all")


def test_objects_that_cannot_be_rendered_are_listed_with_a_reason(tmp_path: Path) -> None:
    make_raw(tmp_path / "raw")
    needle = trimesh.creation.box(extents=(1, 0.0005, 0.0005))
    needle.export(tmp_path / "raw/needle.off")
    white = trimesh.creation.box(extents=(1, 1, 1))
    white.visual.vertex_colors = [0, 0, 0, 255]
    white.export(tmp_path / "raw/edited.ply")
    trimesh.creation.icosphere().export(tmp_path / "raw/gone.off")
    prepare(tmp_path)
    trimesh.creation.icosphere().export(tmp_path / "raw/edited.ply")
    (tmp_path / "raw/gone.off").unlink()
    with pytest.raises(DataError, match=r"3 of 6 objects cannot be rendered .*max_failure_ratio 0.1 allows"):
        views_of(tmp_path, max_failure_ratio=0.1)
    assert len((tmp_path / "data/views/all/failures.jsonl").read_text().splitlines()) == 3
    with pytest.raises(DataError, match="no views here"):
        ViewStore(tmp_path / "data/views/all")
    views = views_of(tmp_path)
    assert len(views) == 3
    assert {f["path"]: f["reason"] for f in views.failures()} == {
        "edited.ply": "changed",
        "gone.off": "changed",
        "needle.off": "nothing_visible",
    }


def test_views_of_one_colour_are_marked_and_the_others_kept(tmp_path: Path) -> None:
    """A thin plate is seen by some cameras; edge-on it is nearly nothing and that view is not valid."""
    (tmp_path / "raw").mkdir()
    plate = trimesh.creation.box(extents=(2, 2, 0.0005))
    plate.export(tmp_path / "raw/plate.off")
    prepare(tmp_path)
    views = views_of(tmp_path, max_failure_ratio=0.0)
    assert views.valid.tolist() == [[True] * 4 + [False] * 4 + [True] * 4]
    assert views.rgb(0).shape == (12, 48, 48, 3)


def test_a_missing_source_folder_is_an_error_before_the_work(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; give the folder that .* was prepared from"):
        render_views(
            params(),
            source=tmp_path / "nowhere",
            dataset=reference / "data/objects",
            views=tmp_path / "views",
            state=tmp_path / "state",
        )


def test_generated_objects_need_no_source_folder(tmp_path: Path) -> None:
    prepare(tmp_path, source="synthetic", num_objects=2)
    assert not (tmp_path / "raw").exists()
    assert views_of(tmp_path).valid.all()


@pytest.mark.parametrize(
    "folder", ["draco_gltf", "kenney_furniture_with_renders", "kaykit_gltf_multifile", "trimesh_models"]
)
@pytest.mark.slow
def test_real_files_are_rendered_or_left_out_with_a_reason(shared: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "raw").symlink_to(shared / "data/objects" / folder)
    objects = prepare(tmp_path)
    views = views_of(tmp_path, renderer="auto", max_failure_ratio=0.02)
    assert len(views) + len(views.failures()) == len(objects)
    assert views.valid.mean() > 0.97
    meshes = [str(uid) for uid, faces in zip(objects.uids, objects.index["num_faces"], strict=True) if faces]
    for row in (views.row_of[uid] for uid in meshes if uid in views.row_of):
        depth = views.depth(row)
        rim = np.concatenate([depth[:, 0], depth[:, -1], depth[:, :, 0], depth[:, :, -1]], axis=1)
        assert (rim == 0).all(), f"{views.uids[row]} touches the rim of the picture"
