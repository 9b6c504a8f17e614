"""The whole chain on generated shapes, disturbed in every way it must survive."""

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from pointloom.run import stage_records
from pointloom.train.tracking import make_client
from pointloom.workspace import template
from tests.e2e.processes import RunningPipeline, pointloom

pytestmark = pytest.mark.slow

STAGES_OF_SMOKE = [
    *("prepare", "pretrain@scratch", "pretrain@pointnet", "pretrain@mae"),
    *("finetune@pointnet", "finetune@scratch", "finetune@mae", "probe@random", "probe@mae", "report"),
]


@dataclass
class Story:
    """What happened to one workspace, step by step.

    Attributes:
        workspace: The workspace, finished at the end.
        code: Exit code of each step.
        text: Output of each step.
    """

    workspace: Path
    code: dict[str, int] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One run that is stopped, killed, raced, finished and repeated; made once because it takes minutes."""
    base = tmp_path_factory.mktemp("e2e")
    told = Story(base / "my shapes")
    workspace = told.workspace
    assert pointloom("init", str(workspace), "--profile", "smoke", cwd=base).returncode == 0

    run = RunningPipeline(workspace, base / "log")
    run.wait_for(lambda: run.stage_process("prepare"))
    second = pointloom("run", "--workspace", str(workspace), cwd=base)
    told.code["second at once"], told.text["second at once"] = second.returncode, second.stderr
    run.process.send_signal(signal.SIGINT)
    told.code["Ctrl-C"], told.text["Ctrl-C"] = run.finish(), run.text

    run = RunningPipeline(workspace, base / "log")
    run.wait_for(lambda: "Running stage 'pretrain@mae'" in run.text and run.stage_process("pretrain"))
    process = run.stage_process("pretrain")
    assert process is not None
    process.kill()
    told.code["kill -9"], told.text["kill -9"] = run.finish(), run.text

    run = RunningPipeline(workspace, base / "log")
    run.wait_for(lambda: "Running stage 'finetune@mae'" in run.text and run.stage_process("finetune"))
    run.process.terminate()
    told.code["SIGTERM"], told.text["SIGTERM"] = run.finish(), run.text

    for step in ("finish", "again"):
        done = pointloom("run", "--workspace", str(workspace), cwd=base)
        told.code[step], told.text[step] = done.returncode, done.stdout + done.stderr
    return told


def executed(text: str) -> list[str]:
    return [line.split("'")[1] for line in text.splitlines() if line.startswith("Running stage '")]


def test_second_run_at_once_is_refused(story: Story) -> None:
    assert story.code["second at once"] == 2
    assert "another run is going on" in story.text["second at once"]


def test_ctrl_c_ends_with_130_and_says_that_work_is_kept(story: Story) -> None:
    assert story.code["Ctrl-C"] == 130
    assert "the same command continues" in story.text["Ctrl-C"]
    assert "Traceback" not in story.text["Ctrl-C"]


def test_killed_stage_is_an_error_that_names_it_and_says_what_to_do(story: Story) -> None:
    assert story.code["kill -9"] == 2
    assert "pretrain@mae" in story.text["kill -9"]
    assert "continues from there" in story.text["kill -9"]


def test_sigterm_ends_with_75(story: Story) -> None:
    assert story.code["SIGTERM"] == 75


def test_next_run_repeats_nothing_that_was_finished(story: Story) -> None:
    assert story.code["finish"] == 0, story.text["finish"]
    assert executed(story.text["finish"])[0] == "finetune@mae"
    done = [
        *executed(story.text["kill -9"])[:-1],
        *executed(story.text["SIGTERM"])[:-1],
        *executed(story.text["finish"]),
    ]
    assert done == STAGES_OF_SMOKE


def test_run_of_a_finished_workspace_does_nothing(story: Story) -> None:
    assert story.code["again"] == 0
    assert executed(story.text["again"]) == []
    assert "report/report.html" in story.text["again"]


def test_everything_is_there(story: Story) -> None:
    workspace = story.workspace
    page = (workspace / "report" / "report.html").read_text()
    assert "<html" in page
    for name in ("report/report.md", "report/report.json", "models/mae/encoder.safetensors", "models/mae/README.md"):
        assert (workspace / name).stat().st_size > 0, name
    records = stage_records(workspace)
    assert len(records) == len(STAGES_OF_SMOKE)
    for name, record in records.items():
        run = record["run"]
        assert run["wall_s"] > 0, name
        assert run["cpu_s"] > 0, name
        assert run["peak_memory_mb"] > 50, name
    assert records["finetune/mae"]["run"]["data_digest"] == records["probe/mae"]["run"]["data_digest"] is not None


def test_mlflow_links_the_last_run_to_every_stage_that_dvc_skipped(story: Story) -> None:
    client = make_client(f"sqlite:///{story.workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("my shapes").experiment_id
    newest = client.search_runs([experiment], "tags.stage = 'run'", order_by=["attributes.start_time DESC"])[0]
    assert newest.info.status == "FINISHED"
    for name, record in stage_records(story.workspace).items():
        key = name.replace("/", ".")
        run_id = newest.data.tags[f"stage.{key}.run_id"]
        assert run_id == record["run"]["mlflow_run_id"]
        assert newest.data.tags[f"stage.{key}.skipped"] == "True"
        child = client.get_run(run_id)
        assert child.info.status == "FINISHED"
        assert "mlflow.parentRunId" in child.data.tags
    assert "finetune/mae/oa/mean" in newest.data.metrics
    assert "report/report.html" in [item.path for item in client.list_artifacts(newest.info.run_id, "report")]
    assert (
        client.get_model_version_by_alias("my shapes-mae", "newest").run_id
        == newest.data.tags["stage.pretrain.mae.run_id"]
    )


def test_edit_of_one_section_reruns_only_what_depends_on_it(story: Story) -> None:
    file = story.workspace / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params["probe"]["mae"]["few_shot"] = {**params["probe"]["mae"]["few_shot"], "episodes": 3}
    text = file.read_text()
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    done = pointloom("run", "--workspace", str(story.workspace), cwd=story.workspace)
    assert done.returncode == 0, done.stderr
    assert executed(done.stdout + done.stderr) == ["probe@mae", "report"]
    file.write_text(text)


def test_typo_in_any_section_stops_before_anything_runs(story: Story) -> None:
    file = story.workspace / "params.yaml"
    text = file.read_text()
    file.write_text(text.replace("tsne_objects", "tsne_object"))
    done = pointloom("run", "--workspace", str(story.workspace), cwd=story.workspace)
    file.write_text(text)
    assert done.returncode == 2
    assert "did you mean 'tsne_objects'" in done.stderr
    assert executed(done.stdout) == []


def test_dead_tracking_server_changes_nothing_but_a_line(story: Story, tmp_path: Path) -> None:
    params = yaml.safe_load(template("profiles/pretrain/smoke.yaml"))["pretrain"]["scratch"]
    (tmp_path / "workspace.yaml").write_text("source: raw\ntracking_uri: http://127.0.0.1:9\n")
    dataset = str(story.workspace / "data" / "objects")
    arguments = ["--params", json.dumps(params), "--dataset", dataset, "--encoder", "m", "--metrics", "m.json"]
    done = pointloom("pretrain", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sent by the next stage" in done.stderr
    assert json.loads((tmp_path / "m.json").read_text())["run"]["mlflow_run_id"] is None
    assert len(list((tmp_path / "state" / "tracking").glob("*.jsonl"))) == 1
