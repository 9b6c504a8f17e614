"""Stages that are split: shards do parts, the stage does the rest, and what is made is that of the unsplit stage."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trimesh
from click.testing import CliRunner

from pointloom.captioners.offline import OfflineCaptioner
from pointloom.cli import cli
from pointloom.data.journal import ByteJournal
from pointloom.data.shards import ObjectStore
from pointloom.errors import ParamsError, WorkspaceError
from pointloom.stages import embed_texts, embed_views
from pointloom.stages.caption import OfflineCaptionParams, caption
from pointloom.stages.embed import EmbedParams, embed
from pointloom.stages.fan_out import Shard, journal_files
from pointloom.stages.prepare import PrepareParams, prepare
from pointloom.stages.render import RenderParams, render
from pointloom.teachers import offline_image
from pointloom.train.state import locked_folder
from tests.captioners.stores import Thing, write_random_views, write_things

PREPARE = {
    "source": "folder", "num_objects": 0, "unlabelled_synthetic": 3, "num_points": 32, "seed": 0, "test_fraction": 0.25,
    "up": "auto", "max_failure_ratio": 0.5, "num_workers": 1,
}  # fmt: skip
RENDER = {
    "layout": "openshape12", "size": 16, "supersample": 1, "fov_degrees": 40, "renderer": "raycast",
    "require_gpu": False, "max_failure_ratio": 0.5, "num_workers": 1,
}  # fmt: skip
EMBED = {
    "views": "v", "captions": "c", "batch_size": 4, "precision": "fp32",
    "text": {"name": "words", "teacher": "bag_of_words", "num_captions": 2, "class_names": "clean", "dim": 16,
             "idf_power": 1.0},
    "images": [{"name": name, "teacher": name, "dim": 8, "whitening": 0.5} for name in ("shape", "look")],
}  # fmt: skip

Run = Callable[[Path, Shard | None], Path]
"""Runs a stage into a folder of its own and returns what it made; a shard makes nothing."""


@pytest.fixture(autouse=True)
def _small_blocks_and_no_tracking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(offline_image, "CELLS", (32,))
    monkeypatch.setattr(OfflineCaptioner, "block_size", 2)
    monkeypatch.setattr(embed_views, "BLOCK", 2)
    monkeypatch.setattr(embed_texts, "BLOCK", 2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to prepare; a store of nine things with views and captions."""
    root = tmp_path_factory.mktemp("inputs")
    for i in range(5):
        path = root / "raw" / ("ball" if i % 2 else "box") / f"{i}.off"
        path.parent.mkdir(parents=True, exist_ok=True)
        (trimesh.creation.icosphere(subdivisions=1) if i % 2 else trimesh.creation.box((1, 2, 1 + i))).export(path)
    (root / "raw/box/broken.stl").write_bytes(b"")
    colors = ((200, 30, 30), (20, 40, 220), (0, 130, 0))
    things = [
        Thing(category="chair" if i % 2 else "lamp", color=colors[i % 3], split="test" if i > 6 else "train")
        for i in range(9)
    ]
    store = write_things(root / "objects", things)
    write_random_views(root / "views", store, valid={2: [True, False], 5: []})
    describe = OfflineCaptionParams(method="offline", views="v", category=True, source="measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        caption(
            describe, dataset=root / "objects", views=root / "views", captions=root / "captions/c",
            metrics=root / "c.json", state=root / "state",
        )  # fmt: skip
    return root


def runs_of(stage: str, inputs: Path) -> Run:
    """Return the stage on these inputs, writing below another folder."""

    def run(root: Path, shard: Shard | None) -> Path:
        made, written = root / "made", {"metrics": root / "metrics.json", "state": root / "state", "shard": shard}
        objects, views, captions = inputs / "objects", inputs / "views", inputs / "captions/c"
        if stage == "prepare":
            prepare(PrepareParams.model_validate(PREPARE), source=inputs / "raw", dataset=made, **written)
        elif stage == "render":
            values = RenderParams.model_validate(RENDER)
            render(values, source=inputs / "raw", dataset=inputs / "prepared", views=made, **written)
        elif stage == "caption":
            values = OfflineCaptionParams(method="offline", views="v", category=True, source="measured")
            caption(values, dataset=objects, views=views, captions=made, **written)
        else:
            values = EmbedParams.model_validate(EMBED)
            embed(values, dataset=objects, views=views, captions=captions, features=made, **written)
        return made

    if stage == "render" and not (inputs / "prepared").exists():
        shutil.move(runs_of("prepare", inputs)(inputs / "first", None), inputs / "prepared")
    return run


@pytest.fixture(scope="module")
def wholes(inputs: Path) -> Callable[[str], dict[str, bytes]]:
    """What each stage makes alone, made once."""
    found: dict[str, dict[str, bytes]] = {}

    def whole(stage: str) -> dict[str, bytes]:
        if stage not in found:
            found[stage] = content(runs_of(stage, inputs)(inputs / "alone" / stage, None))
        return found[stage]

    return whole


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def nothing_is_kept(*arguments: object) -> None:
    raise AssertionError("work that a shard had finished was done again")


@pytest.mark.parametrize("stage", ["prepare", "render", "caption", "embed"])
def test_shards_and_then_the_stage_make_what_the_stage_alone_makes(
    stage: str,
    inputs: Path,
    wholes: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, whole, split = runs_of(stage, inputs), wholes(stage), tmp_path / "split"
    for index in (1, 0):
        run(split, Shard(index, 2))
    assert not (split / "made").exists()
    assert not (split / "metrics.json").exists()
    with caplog.at_level("INFO"), monkeypatch.context() as patch:
        patch.setattr(ByteJournal, "put", nothing_is_kept)
        assert content(run(split, None)) == whole
    if stage in {"prepare", "render"}:  # the broken file is the one object that is tried again
        assert {"prepare": "8 of 9 objects are done", "render": "8 of 8 objects are done"}[stage] in caplog.text
    assert not [path for path in (split / "state").rglob("*.journal") if "tracking" not in path.parts]
    assert (split / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "render", "caption", "embed"])
def test_lost_repeated_and_overlapping_shards_change_nothing(
    stage: str, inputs: Path, wholes: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    run, split = runs_of(stage, inputs), tmp_path / "split"
    for shard in (Shard(0, 3), Shard(0, 3), Shard(1, 2)):  # 1 and 2 of 3 are lost
        run(split, shard)
    torn = max((split / "state").rglob("*-0-of-3.journal"), key=lambda path: path.stat().st_size)
    os.truncate(torn, torn.stat().st_size - 3)  # as a kill or a lost node leaves it
    assert content(run(split, None)) == wholes(stage)


@pytest.mark.parametrize("stage", ["prepare", "caption"])  # the lock of caption is that of render and embed
def test_stage_waits_for_nobody_but_says_that_a_shard_is_running(stage: str, inputs: Path, tmp_path: Path) -> None:
    run = runs_of(stage, inputs)
    run(tmp_path, Shard(0, 2))
    (folder,) = {path.parent for path in (tmp_path / "state").rglob("lock-0-of-2")}
    with locked_folder(folder, stage=stage, shard="0-of-2"):
        with pytest.raises(WorkspaceError, match="or a shard of it, is already running"):
            run(tmp_path, None)
        with pytest.raises(WorkspaceError, match=f"shard 0-of-2 of {stage} is already running"):
            run(tmp_path, Shard(0, 2))
        run(tmp_path, Shard(1, 2))
    with locked_folder(folder, stage=stage), pytest.raises(WorkspaceError, match="is already running"):
        run(tmp_path, Shard(1, 2))


def test_a_shard_reads_the_journals_of_other_splits_only(tmp_path: Path) -> None:
    for name in ("v.journal", "v-0-of-2.journal", "v-1-of-2.journal", "v-1-of-3.journal", "vv-0-of-3.journal"):
        (tmp_path / name).touch()
    own, beside = journal_files(tmp_path, "v", Shard(0, 2))
    assert own.name == "v-0-of-2.journal"
    assert [path.name for path in beside] == ["v-1-of-3.journal", "v.journal"]
    own, beside = journal_files(tmp_path, "v", None)
    assert own.name == "v.journal"
    assert [path.name for path in beside] == ["v-0-of-2.journal", "v-1-of-2.journal", "v-1-of-3.journal"]


@pytest.mark.parametrize("index", [-1, 4])
def test_shards_that_do_not_exist_are_refused(index: int) -> None:
    with pytest.raises(ParamsError, match="there is no such part; parts are counted from 0"):
        Shard(index, 4)
    with pytest.raises(ParamsError, match="no such part"):
        Shard(0, 0)


def test_every_item_belongs_to_one_shard() -> None:
    parts = [Shard(index, 3).part(range(10)) for index in range(3)]
    assert sorted(item for part in parts for item in part) == list(range(10))
    assert parts[1] == [1, 4, 7]


def test_command_line_takes_both_options_or_none(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"prepare: {PREPARE}\n".replace("False", "false"))
    command = ["prepare", "--params", "params.yaml:prepare", "--source", str(inputs / "raw"), "--dataset", "made"]
    command += ["--metrics", "metrics.json"]
    alone = CliRunner().invoke(cli, [*command, "--shard", "1"])
    assert alone.exit_code == 2
    assert "--shard and --num-shards go together" in alone.output
    beyond = CliRunner().invoke(cli, [*command, "--shard", "2", "--num-shards", "2"])
    assert isinstance(beyond.exception, ParamsError)
    assert CliRunner().invoke(cli, [*command, "--shard", "1", "--num-shards", "2"]).exit_code == 0
    assert [path.name for path in (tmp_path / "state/prepare").glob("*.journal")] == ["objects-1-of-2.journal"]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert len(ObjectStore(tmp_path / "made")) == 8


def test_scenes_are_not_split(tmp_path: Path) -> None:
    params = PrepareParams.model_validate(PREPARE | {"source": "s3dis", "variant": "aligned"})
    with pytest.raises(ParamsError, match=r"scenes .* are not done in parts"):
        prepare(
            params, source=tmp_path, dataset=tmp_path / "made", metrics=tmp_path / "m.json", state=tmp_path / "state",
            shard=Shard(0, 2),
        )  # fmt: skip


def test_stages_that_train_are_not_split() -> None:
    done = CliRunner().invoke(cli, ["pretrain", "--shard", "0"])
    assert "No such option '--shard'" in done.output
