"""Pipelines in containers beside the same stages run by ``pointloom run``: equal data, nearly equal learning, the same
report."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointloom.workspace import template
from tests.docker.conftest import ROOT, TAG
from tests.e2e.processes import environment, pointloom

pytestmark = [pytest.mark.docker, pytest.mark.slow]

DATA = {
    "prepare": ("dataset", "objects"),
    "render": ("views", "views/views"),
    "caption": ("captions", "captions/offline"),
    "embed": ("features", "features/offline"),
}
"""Stages that make data: name of the output in Kubeflow, place in a workspace's folder of data."""

MAKING = {"pretrain": ["prepare"], "multimodal": list(DATA)}
LEARNING = {
    "pretrain": {"pretrain": "mae", "finetune": "mae", "probe": "mae"},
    "multimodal": {
        "pretrain": "mae",
        "align": "align",
        "distill": "distill",
        "finetune": "distill",
        "probe": "distill",
    },
}
"""By pipeline, the stages that make data and those that train, the latter with the one entry that is left of them."""

OWN = {"bottleneck", "started", "mlflow_run_id", "git", "dirty", "python", "weights_sha256", "parent_sha256"}
COSTS = {"wall_s", "cpu_s", "load_average", "peak_memory_mb", "waiting"}
COSTS |= {f"cpu_{part}_s" for part in ("pretrain", "finetune", "total")}
CHOSEN = {"worst", "guesses", "retrieval", "neighbors", "multimodal"}
"""What two reports of equal results may differ in: their own run and machine, what it cost, and, in these sections,
which object is shown."""


@dataclass(frozen=True)
class Rehearsal:
    """One pipeline, run twice.

    Attributes:
        pipeline: Its name.
        artifacts: What the containers have made.
        workspace: What the shell has made of the same parameters.
    """

    pipeline: str
    artifacts: Path
    workspace: Path


def small_params(pipeline: str) -> dict[str, Any]:
    """Profile smoke with few objects, and one entry per stage."""
    params: dict[str, Any] = yaml.safe_load(template(f"profiles/{pipeline}/smoke.yaml"))
    learned = LEARNING[pipeline]
    params["prepare"] |= {"num_objects": 60, "num_workers": 1}
    for section in ("pretrain", "align", "distill", "finetune", "probe"):
        params[section] = {entry: params[section][entry] for stage, entry in learned.items() if stage == section}
    for values in params["render"].values():  # a machine's OpenGL may be another than the image's
        values |= {"renderer": "raycast"}
    params["finetune"][learned["finetune"]] |= {"seeds": [0], "label_epochs": {1.0: 1}, "votes": 1}
    rows = {"baseline": learned["finetune"], "probe_baseline": learned["probe"], "detail": [learned["finetune"]]}
    params["report"] |= {**rows, "tsne_objects": 20}
    return params


def in_containers(pipeline: str, folder: Path) -> Path:
    """Rehearse a pipeline; returns the folder of its artefacts."""
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(pipeline)))
    command = [sys.executable, "-m", "pipelines.run", pipeline, "--params", str(folder / "params.yaml")]
    command += ["--folder", str(folder), "--tag", TAG]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    page = Path(done.stdout.splitlines()[-1])
    assert page.is_relative_to(folder)
    assert "Smoke test" in page.read_text()
    return page.parents[2]


def in_the_shell(pipeline: str, folder: Path) -> Path:
    """Run the same parameters in a new workspace."""
    made = pointloom("init", str(folder), "--pipeline", pipeline, "--profile", "smoke", cwd=folder.parent)
    assert made.returncode == 0, made.stderr
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params(pipeline)))
    done = pointloom("run", "--workspace", str(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", params=LEARNING)
def rehearsal(
    request: pytest.FixtureRequest, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Rehearsal:
    pytest.importorskip("kfp", reason="kfp is in an environment of its own: make test-docker")
    pipeline = request.param
    artifacts = in_containers(pipeline, tmp_path_factory.mktemp("rehearsal"))
    workspace = in_the_shell(pipeline, tmp_path_factory.mktemp("shell") / "workspace")
    return Rehearsal(pipeline, artifacts, workspace)


def metrics_of(file: Path) -> dict[str, float]:
    numbers: dict[str, float] = json.loads(file.read_text())["metrics"]
    return numbers


def differences(found: Any, expected: Any, where: tuple[str, ...] = ()) -> list[str]:
    """Places where reports differ: in their rows, in a text, or in a number by more than learning's tolerance."""
    if isinstance(found, dict) and isinstance(expected, dict):
        pairs = [(key, found.get(key), expected.get(key)) for key in (found.keys() | expected.keys()) - OWN - COSTS]
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    elif isinstance(found, str) and isinstance(expected, str) and CHOSEN & set(where):
        return []
    else:
        near = isinstance(found, int | float) and found == pytest.approx(expected, rel=0.01, abs=10)
        return [] if near or found == expected else [f"{'/'.join(where)}: {found}, in the shell {expected}"]
    return [line for key, *pair in pairs for line in differences(*pair, (*where, key))]


def headings(page: Path) -> list[str]:
    return re.findall(r"<h[123][^>]*>(.*?)</h", page.read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_data_are_equal_to_the_bit(rehearsal: Rehearsal) -> None:
    for stage in MAKING[rehearsal.pipeline]:
        output, place = DATA[stage]
        found = files_of(rehearsal.artifacts / stage / output)
        expected = files_of(rehearsal.workspace / "data" / place)
        assert [name for name in expected if name.endswith((".h5", ".parquet"))], stage
        names = found.keys() | expected.keys()
        assert {name for name in names if found.get(name) != expected.get(name)} == set(), stage


def test_learning_is_equal_to_a_tolerance(rehearsal: Rehearsal) -> None:
    for stage, entry in LEARNING[rehearsal.pipeline].items():
        found = metrics_of(rehearsal.artifacts / stage / "metrics")
        expected = metrics_of(rehearsal.workspace / "reports" / stage / f"{entry}.json")
        assert found.keys() == expected.keys(), stage
        results = [name for name in expected if not name.endswith("/std") and name != "percent_waiting_for_data"]
        for name in results:
            answer = 10.0 if "/" in name else 0  # percent: one of ten episodes' queries, two test objects of twenty
            assert found[name] == pytest.approx(expected[name], rel=0.01, abs=answer), f"{stage}: {name}"


def test_report_is_the_same(rehearsal: Rehearsal) -> None:
    found, expected = rehearsal.artifacts / "report" / "report", rehearsal.workspace / "report"
    contents = [json.loads((folder / "report.json").read_text()) for folder in (found, expected)]
    assert differences(*contents) == []
    assert headings(found / "report.html") == headings(expected / "report.html")
    assert files_of(found).keys() == files_of(expected).keys()
    assert files_of(found / "thumbnails/inputs") == files_of(expected / "thumbnails/inputs")
    numbers = [
        metrics_of(file)
        for file in (rehearsal.artifacts / "report/metrics", rehearsal.workspace / "reports/report.json")
    ]
    assert differences(*numbers) == []


def test_everything_belongs_to_the_user(rehearsal: Rehearsal) -> None:
    assert {path.stat().st_uid for path in rehearsal.artifacts.rglob("*")} == {os.getuid()}
