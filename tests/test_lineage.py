"""What made this and what it made, asked by every kind of id."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mlflow.store.entities import PagedList

from pointloom.errors import WorkspaceError
from pointloom.lineage import History, as_text, find_subject, read_history, trace
from pointloom.lineage_command import lineage
from pointloom.provenance import KINDS, OUTPUTS, Run, merged, server_runs
from pointloom.stages import STAGES
from pointloom.stages.runs import write_json
from pointloom.train.spool import TrackingTarget
from pointloom.workspace import WorkspaceChoices, init_workspace

ROOT = Path(__file__).resolve().parents[1]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


DATA, VIEWS, FEATURES, FIRST, SECOND = map(digest, ("data", "views", "features", "first", "second"))
REVISION = "0123456789abcdef0123456789abcdef01234567"


def run(stage: str, name: str = "", **more: Any) -> Run:
    known = {"mlflow": digest(stage + name)[:32], "revision": REVISION, "parent": "feedfacefeedface"}
    return Run(stage=stage, name=name, started=f"2026-01-0{more.pop('day', 1)}T00:00:00Z", **(known | more))


CHAIN = [
    run("prepare", made=DATA, day=1),
    run("render", "all", used={"dataset": DATA}, made=VIEWS, day=2, kubeflow="kfp-run-1"),
    run("embed", "all", used={"dataset": DATA, "views": VIEWS}, made=FEATURES, day=3, kubeflow="kfp-run-1"),
    run("align", "one", used={"dataset": DATA, "features": FEATURES}, made=FIRST, day=4),
    run("distill", "two", used={"dataset": DATA, "teacher": FIRST}, made=SECOND, day=5),
    run("probe", "two", used={"dataset": DATA, "encoder": SECOND}, day=6, outputs=("results/probe/two",)),
    run("probe", "one", used={"dataset": DATA, "encoder": FIRST}, day=7, status="FAILED", dirty=True),
]


def traced(text: str, folder: Path = Path("nowhere")) -> dict[str, Any]:
    history = History(CHAIN)
    return trace(history, find_subject(history, text, folder))


def test_an_encoder_comes_from_everything_before_it_and_leads_to_what_used_it() -> None:
    found = traced(FIRST)
    assert found["kind"] == "encoder"
    (align,) = found["made_by"]
    assert (align["stage"], align["name"], align["id"]) == ("align", "one", CHAIN[3].mlflow)
    origins = {row["kind"]: row for row in align["from"]}
    assert origins["dataset"]["made_by"][0]["stage"] == "prepare"
    embed = origins["features"]["made_by"][0]
    assert [(row["kind"], row.get("shown", False)) for row in embed["from"]] == [("dataset", True), ("views", False)]
    assert embed["from"][1]["made_by"][0]["stage"] == "render"
    assert [user["stage"] for user in found["used_by"]] == ["distill", "probe"]
    distilled = found["used_by"][0]["made"][0]
    assert (distilled["id"], [user["stage"] for user in distilled["used_by"]]) == (SECOND, ["probe"])


def test_tree_has_a_line_for_everything_and_says_what_was_not_finished() -> None:
    assert as_text(traced(FIRST[:10])).splitlines() == [
        f"encoder {FIRST}",
        f"├─ made by align/one  2026-01-04T00:00:00Z  run {CHAIN[3].mlflow}  git 0123456789ab",
        f"│  ├─ from dataset {DATA}",
        f"│  │  └─ made by prepare  2026-01-01T00:00:00Z  run {CHAIN[0].mlflow}  git 0123456789ab",
        f"│  └─ from features {FEATURES}",
        f"│     └─ made by embed/all  2026-01-03T00:00:00Z  run {CHAIN[2].mlflow}  Kubeflow kfp-run-1  "
        "git 0123456789ab",
        f"│        ├─ from dataset {DATA} (above)",
        f"│        └─ from views {VIEWS}",
        f"│           └─ made by render/all  2026-01-02T00:00:00Z  run {CHAIN[1].mlflow}  Kubeflow kfp-run-1  "
        "git 0123456789ab",
        f"│              └─ from dataset {DATA} (above)",
        f"├─ used by distill/two  2026-01-05T00:00:00Z  run {CHAIN[4].mlflow}  git 0123456789ab",
        f"│  └─ made encoder {SECOND}",
        f"│     └─ used by probe/two  2026-01-06T00:00:00Z  run {CHAIN[5].mlflow}  git 0123456789ab  results/probe/two",
        f"└─ used by probe/one  2026-01-07T00:00:00Z  FAILED  run {CHAIN[6].mlflow}  git 0123456789ab (edited)",
    ]


def test_a_run_is_shown_with_what_it_used_and_made() -> None:
    found = traced(CHAIN[4].mlflow)
    assert (found["kind"], found["stage"]) == ("run", "distill")
    assert [row["id"] for row in found["from"]] == [DATA, FIRST]
    assert [row["id"] for row in found["made"]] == [SECOND]


@pytest.mark.parametrize(
    ("text", "kind", "stages"),
    [
        ("kfp-run", "Kubeflow run", ["render", "embed"]),
        (REVISION[:8], "git revision", [one.stage for one in CHAIN]),
        ("feedface", "run of a workspace", [one.stage for one in CHAIN]),
    ],
)
def test_ids_of_several_runs_list_them(text: str, kind: str, stages: list[str]) -> None:
    found = traced(text)
    assert (found["kind"], [row["stage"] for row in found["runs"]]) == (kind, stages)
    assert len(as_text(found).splitlines()) > len(stages)


def test_unknown_short_and_ambiguous_ids_are_errors_that_say_so() -> None:
    with pytest.raises(WorkspaceError, match=r"c0ffee: none of the 7 runs .* has this id, made it or used it"):
        traced("c0ffee")
    with pytest.raises(WorkspaceError, match="at least 6 characters"):
        traced("c0f")
    twins = History([replace(CHAIN[0], made="aaaaaa1"), replace(CHAIN[1], made="aaaaaa2", used={})])
    with pytest.raises(WorkspaceError, match=r"beginning of 2 ids.*\n  dataset +aaaaaa1\n  views +aaaaaa2"):
        find_subject(twins, "aaaaaa", Path("nowhere"))
    assert find_subject(twins, "aaaaaa2", Path("nowhere")).kind == "views"


def test_what_is_known_from_inputs_alone_is_found_too() -> None:
    history = History([run("finetune", "x", used={"dataset": DATA, "encoder": FIRST})])
    found = trace(history, find_subject(history, FIRST, Path("nowhere")))
    assert (found["kind"], found["made_by"], found["used_by"][0]["stage"]) == ("encoder", [], "finetune")


def test_the_same_run_told_twice_is_one() -> None:
    file = replace(CHAIN[3], parent="", kubeflow="", place="here")
    server = replace(CHAIN[3], made=None, used={}, outputs=("models/one",), kubeflow="kfp-run-2")
    (joined,) = merged([file, server])
    assert (joined.made, joined.used, joined.outputs) == (FIRST, CHAIN[3].used, ("models/one",))
    assert (joined.parent, joined.kubeflow, joined.place) == ("feedfacefeedface", "kfp-run-2", "here")


def test_outputs_of_stages_are_those_of_the_graph() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(OUTPUTS) == list(STAGES)
    for stage, paths in OUTPUTS.items():
        definition = graph[stage].get("do", graph[stage])
        assert tuple(path.replace("${key}", "{name}") for path in definition["outs"]) == paths
    assert set(KINDS) < set(STAGES)


def made_workspace(folder: Path) -> None:
    """A workspace whose encoder and result have been made, as far as lineage sees them."""
    (folder / "models/mae").mkdir(parents=True)
    (folder / "models/mae/encoder.safetensors").write_bytes(b"weights")
    card = {"weights_sha256": hashlib.sha256(b"weights").hexdigest(), "method": "mae"}
    (folder / "models/mae/encoder.json").write_text(json.dumps(card))
    (folder / "data/objects").mkdir(parents=True)
    (folder / "data/objects/dataset.json").write_text(json.dumps({"digest": DATA}))
    (folder / "results/probe/mae").mkdir(parents=True)
    (folder / "workspace.yaml").write_text("source: raw\n")
    git = {"revision": REVISION, "dirty": False}
    for day, (stage, name, inputs) in enumerate(
        [
            ("prepare", "", {}),
            ("pretrain", "mae", {"dataset": DATA}),
            ("probe", "mae", {"dataset": DATA, "encoder": card["weights_sha256"]}),
        ],
        start=1,
    ):
        record = {"stage": stage, "name": name, "started": f"2026-01-0{day}T00:00:00Z", "git": git, "inputs": inputs}
        path = folder / "reports" / stage / f"{name}.json" if name else folder / "reports" / f"{stage}.json"
        write_json(path, {"metrics": {}, "run": record | {"mlflow_run_id": None, "params_sha256": "ab" * 32}})


@pytest.mark.parametrize(
    "subject",
    ["models/mae", "models/mae/encoder.safetensors", "copy.safetensors", hashlib.sha256(b"weights").hexdigest()],
)
def test_files_alone_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str) -> None:
    made_workspace(tmp_path)
    shutil.copy(tmp_path / "models/mae/encoder.safetensors", tmp_path / "copy.safetensors")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = CliRunner().invoke(lineage, [subject, "--in", str(tmp_path), "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert (found["kind"], found["made_by"][0]["stage"], found["used_by"][0]["stage"]) == (
        "encoder",
        "pretrain",
        "probe",
    )
    assert found["made_by"][0]["from"][0]["made_by"][0]["outputs"] == ["data/objects"]


def test_outputs_without_an_identity_are_found_by_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_workspace(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    history = read_history(tmp_path)
    found = trace(history, find_subject(history, "results/probe/mae", tmp_path))
    assert (found["stage"], [row["kind"] for row in found["from"]]) == ("probe", ["dataset", "encoder"])
    (tmp_path / "other.bin").write_bytes(b"other")
    with pytest.raises(WorkspaceError, match=r"other.bin: sha256 .*which no run of"):
        find_subject(history, "other.bin", tmp_path)
    with pytest.raises(WorkspaceError, match="nothing that a stage makes; outputs are data/captions/NAME"):
        find_subject(history, "results", tmp_path)


def test_a_server_that_is_down_leaves_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made_workspace(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret-word@127.0.0.1:9")
    history = read_history(tmp_path)
    assert [one.stage for one in history.runs] == ["prepare", "pretrain", "probe"]
    assert "MLflow at http://127.0.0.1:9 does not answer: API request" in caplog.text
    assert "secret-word" not in caplog.text


def test_experiment_of_kubeflows_plugin_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        def get_experiment(self, number: str) -> SimpleNamespace:
            return SimpleNamespace(experiment_id=number)

        def search_runs(self, experiments: list[str], **_: Any) -> PagedList:
            info = SimpleNamespace(run_name=f"embed/of-{experiments}", start_time=0, status="FINISHED", run_id="a1")
            return PagedList([SimpleNamespace(info=info, data=SimpleNamespace(tags={"stage": "embed"}))], None)

    monkeypatch.setattr("pointloom.train.tracking.make_client", lambda _: Server())
    (found,) = server_runs(TrackingTarget("http://mlflow", "by name", experiment_id="7"))
    assert found.name == "of-['7']"


def test_steps_of_a_pipeline_tell_the_same(tmp_path: Path) -> None:
    lineage_of_step = {"stage": "pretrain", "entry": "mae", "kfp_run_id": "kfp-run-9", "data_digest": DATA}
    encoder = {"uri": "/a/encoder", "metadata": lineage_of_step | {"checkpoint_sha256": FIRST, "input_dataset": DATA}}
    metrics = {"uri": "/a/metrics", "metadata": lineage_of_step | {"loss": 0.5}}
    artifacts = {"encoder": {"artifacts": [encoder]}, "metrics": {"artifacts": [metrics]}}
    (tmp_path / "run/pretrain").mkdir(parents=True)
    (tmp_path / "run/pretrain/executor_output.json").write_text(json.dumps({"artifacts": artifacts}))
    history = read_history(tmp_path)
    found = trace(history, find_subject(history, "kfp-run-9", tmp_path))
    assert found["runs"][0]["made"] == [{"kind": "encoder", "id": FIRST}]
    assert found["runs"][0]["from"] == [{"kind": "dataset", "id": DATA}]
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkspaceError, match="is no workspace and has no executor_output"):
        read_history(tmp_path / "empty")


@pytest.mark.slow
def test_real_stages_and_a_real_database_answer_to_every_id(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    init_workspace(WorkspaceChoices(folder=workspace, profile="smoke"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT), "KFP_RUN_ID": "kfp-0b5e7ed0"}

    def pointloom(*words: str) -> str:
        command = [sys.executable, "-m", "pointloom.cli", *words]
        done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    values = yaml.safe_load((workspace / "params.yaml").read_text())
    small = values["prepare"] | {"num_objects": 12, "num_points": 256}
    pointloom(
        "prepare", "--params", json.dumps(small), "--source", "raw", "--dataset", "data/objects",
        "--metrics", "reports/prepare.json",
    )  # fmt: skip
    pretrain = values["pretrain"]["mae"] | {
        "epochs": 1,
        "sampling": values["pretrain"]["mae"]["sampling"] | {"pool": 256},
    }
    pointloom(
        "pretrain", "--params", json.dumps(pretrain), "--dataset", "data/objects", "--encoder", "models/mae",
        "--metrics", "reports/pretrain/mae.json",
    )  # fmt: skip
    record = json.loads((workspace / "reports/pretrain/mae.json").read_text())["run"]
    checksum = json.loads((workspace / "models/mae/encoder.json").read_text())["weights_sha256"]
    data = json.loads((workspace / "data/objects/dataset.json").read_text())["digest"]
    assert record["inputs"] == {"dataset": data}
    shutil.rmtree(workspace / "reports")  # from here on, MLflow is asked
    for text, kind in (
        (record["mlflow_run_id"], "run"), (checksum, "encoder"), (data[:16], "dataset"), ("kfp-0b5e", "Kubeflow run"),
        ("models/mae/encoder.safetensors", "encoder"),
    ):  # fmt: skip
        found = json.loads(pointloom("lineage", text, "--json"))
        assert found["kind"] == kind
        assert checksum in json.dumps(found)
        assert data in json.dumps(found)
    if record["git"]["revision"]:
        assert "pretrain/mae" in pointloom("lineage", record["git"]["revision"][:10])
