"""A stage as a step of a Kubeflow pipeline: the executor input is read, executor_output.json is written."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pointloom.errors import DataError, ParamsError
from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelOut, ModelsIn, ResultOut
from pointloom.stages.executor import link_inputs, local_path, read_step, run_step
from pointloom.stages.params import StageParams
from pointloom.stages.runs import write_json
from pointloom.stages.signature import read_signature

RUN = {
    "stage": "train",
    "name": "mae",
    "mlflow_run_id": "abc",
    "data_digest": None,
    "git": {"revision": "f00", "dirty": False},
    "params_sha256": "99",
    "versions": {"pointloom": "0.1.0"},
}


def artifact(path: Path | str, kind: str = "Dataset") -> dict[str, Any]:
    found = {"name": "n", "uri": str(path), "type": {"schemaTitle": f"system.{kind}"}, "metadata": {"kept": 1}}
    return {"artifacts": [found]}


def executor_input(
    folder: Path, outputs: dict[str, Any], *, inputs: dict[str, Any] | None = None, name: str = ""
) -> str:
    given = {"parameterValues": {"name": name} if name else {}, "artifacts": inputs or {}}
    made = {"artifacts": outputs, "outputFile": str(folder / "deep" / "executor_output.json")}
    return json.dumps({"inputs": given, "outputs": made})


def train(params: StageParams, *, dataset: DatasetIn, encoder: ModelOut, metrics: MetricsOut) -> None:
    """Write a card named after the folder."""
    encoder.mkdir(parents=True)
    (encoder / "encoder.json").write_text(json.dumps({"weights_sha256": "5a", "method": encoder.name}))
    write_json(metrics, {"metrics": {"loss": 0.5, "broken": math.nan}, "run": RUN})


def test_step_tells_what_it_made_and_names_it_after_the_entry(tmp_path: Path) -> None:
    encoder, metrics = tmp_path / "out" / "encoder", tmp_path / "out" / "metrics"
    text = executor_input(
        tmp_path,
        {"encoder": artifact(encoder, "Model"), "metrics": artifact(metrics, "Metrics")},
        name="mae",
    )
    paths = {"dataset": tmp_path, "encoder": encoder, "metrics": metrics}
    run_step(read_signature("train", train), StageParams(), paths, text)
    assert json.loads((encoder / "encoder.json").read_text())["method"] == "mae"
    written = json.loads((tmp_path / "deep" / "executor_output.json").read_text())["artifacts"]
    lineage = {"stage": "train", "entry": "mae", "mlflow_run_id": "abc", "git_revision": "f00", "params_sha256": "99"}
    lineage |= {"pointloom_version": "0.1.0", "kept": 1}
    assert written["encoder"]["artifacts"] == [
        {"name": "n", "uri": str(encoder), "metadata": lineage | {"checkpoint_sha256": "5a", "method": "mae"}}
    ]
    assert written["metrics"]["artifacts"][0]["metadata"] == lineage | {"loss": 0.5}


def test_tracker_still_finds_an_output_where_the_stage_wrote_it(tmp_path: Path) -> None:
    text = executor_input(tmp_path, {}, name="mae")
    paths = {"dataset": tmp_path, "encoder": tmp_path / "encoder", "metrics": tmp_path / "metrics"}
    run_step(read_signature("train", train), StageParams(), paths, text)
    assert (tmp_path / ".encoder.staged" / "mae" / "encoder.json").is_file()


def test_failed_stage_leaves_neither_output_nor_message(tmp_path: Path) -> None:
    def fail(params: StageParams, *, encoder: ModelOut, metrics: MetricsOut) -> None:
        encoder.mkdir(parents=True)
        raise DataError("no")

    paths = {"encoder": tmp_path / "encoder", "metrics": tmp_path / "metrics"}
    with pytest.raises(DataError, match="no"):
        run_step(read_signature("fail", fail), StageParams(), paths, executor_input(tmp_path, {}, name="mae"))
    assert not paths["encoder"].exists()
    assert not (tmp_path / "deep").exists()


def test_forgotten_output_is_an_error_because_kfp_would_not_notice(tmp_path: Path) -> None:
    def forget(params: StageParams, *, encoder: ModelOut, metrics: MetricsOut) -> None:
        write_json(metrics, {"metrics": {}, "run": RUN})

    paths = {"encoder": tmp_path / "encoder", "metrics": tmp_path / "metrics"}
    with pytest.raises(DataError, match=r"forget has not written encoder \(.*encoder\)"):
        run_step(read_signature("forget", forget), StageParams(), paths, executor_input(tmp_path, {}, name="mae"))


def test_report_sees_all_gathered_artifacts_and_its_page_is_an_artifact_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "encoder.json").write_text("{}")
    (tmp_path / "m").write_text('{"metrics": {}}')
    seen: list[str] = []

    def report(
        params: StageParams, *, models: ModelsIn, runs: ModelsIn, report: ResultOut, metrics: MetricsOut
    ) -> None:
        seen.extend(str(path.relative_to(models)) for path in models.glob("*/encoder.json"))
        seen.extend(str(path.relative_to(runs)) for path in sorted(runs.glob("**/*.json")))
        report.mkdir()
        (report / "report.html").write_text("<p>")
        write_json(metrics, {"metrics": {}, "run": RUN})

    inputs = {
        "models__mae": artifact(tmp_path / "a", "Model"),
        "runs__prepare": artifact(tmp_path / "m", "Metrics"),
        "runs__finetune__mae_long": artifact(tmp_path / "m", "Metrics"),
    }
    paths = {"models": tmp_path / "in/models", "runs": tmp_path / "in/runs"}
    paths |= {"report": tmp_path / "report", "metrics": tmp_path / "metrics"}
    text = executor_input(tmp_path, {"page": artifact(tmp_path / "shown/page", "HTML")}, inputs=inputs)
    run_step(read_signature("report", report), StageParams(), paths, text)
    assert seen == ["mae/encoder.json", "finetune/mae_long.json", "prepare.json"]
    assert (tmp_path / "shown/page").read_text() == "<p>"
    link_inputs(read_step(text), paths)  # a second attempt in the same place


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/v2/a b", "/s3/bucket/v2/a b"),
        ("minio://bucket/key", "/minio/bucket/key"),
        ("gs://bucket/key", "/gcs/bucket/key"),
        ("file:///data/x", "/data/x"),
        ("/data/x", "/data/x"),
    ],
)
def test_artifacts_are_found_where_kfp_mounts_them(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


def test_unknown_storage_and_malformed_input_are_explained() -> None:
    with pytest.raises(ParamsError, match="expected a path, file://, gs://, minio://, s3://"):
        local_path("oci://image")
    for text in ("", "[]", "{}", '{"outputs": {"artifacts": {"a": {"artifacts": []}}, "outputFile": "/x"}}'):
        with pytest.raises(ParamsError, match="--executor-input: not KFP's ExecutorInput"):
            read_step(text)


@pytest.mark.slow
def test_real_stages_hand_over_through_the_command_line(tmp_path: Path) -> None:
    prepare = {"source": "synthetic", "num_objects": 8, "unlabelled_synthetic": 0, "num_points": 64, "seed": 0}
    prepare |= {"test_fraction": 0.25, "up": "auto", "max_failure_ratio": 0.0, "num_workers": 1}
    untrained = {"method": "untrained", "encoder": "point_mae_tiny", "encoder_args": {}, "num_points": 64, "seed": 0}

    def run(stage: str, params: dict[str, Any], name: str, made: str, **paths: Path) -> dict[str, Any]:
        outputs = {key: artifact(paths[key]) for key in (made, "metrics")}
        text = executor_input(tmp_path / stage, outputs, name=name)
        words = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
        command = [sys.executable, "-m", "pointloom", stage, "--params", json.dumps(params), *words]
        subprocess.run([*command, "--executor-input", text], check=True, cwd=tmp_path, capture_output=True)
        found: dict[str, Any] = json.loads((tmp_path / stage / "deep" / "executor_output.json").read_text())
        return {key: value["artifacts"][0]["metadata"] for key, value in found["artifacts"].items()}

    data, state = tmp_path / "p" / "dataset", tmp_path / "state"
    first = run(
        "prepare",
        prepare,
        "",
        "dataset",
        source=tmp_path,
        dataset=data,
        metrics=tmp_path / "p" / "metrics",
        state=state,
    )
    digest = json.loads((data / "dataset.json").read_text())["digest"]
    assert first["dataset"]["digest"] == digest
    assert first["metrics"]["objects"] == 8
    encoder = tmp_path / "t" / "encoder"
    second = run(
        "pretrain",
        untrained,
        "scratch",
        "encoder",
        dataset=data,
        encoder=encoder,
        metrics=tmp_path / "t" / "m",
        state=state,
    )
    card = json.loads((encoder / "encoder.json").read_text())
    assert second["encoder"]["checkpoint_sha256"] == card["weights_sha256"]
    assert second["encoder"]["data_digest"] == digest
    assert second["encoder"]["entry"] == "scratch"
