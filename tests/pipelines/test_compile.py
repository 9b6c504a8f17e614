"""Compiled pipelines: what is committed, what a cluster reads, edges, placement, caching, and no secret anywhere."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from pipelines.cluster import DEFAULT, read_cluster
from pipelines.compile import FOLDER, all_packages, check_package, compiled, read_documents
from pipelines.graph import build_pipeline
from pipelines.settings import PIPELINES, load_params, profile_file
from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.sections import ENTRY_STAGES, REFERENCES
from pointloom.workspace import SCENE_PIPELINES

TRAINING = {"pretrain", "align", "distill", "finetune", "probe"}
PARAMS = {name: load_params(profile_file(name, "smoke")) for name in PIPELINES}


@pytest.fixture(scope="module")
def packages() -> dict[str, list[dict[str, Any]]]:
    cluster = read_cluster()
    return {name: read_documents(compiled(build_pipeline(name, PARAMS[name], cluster))) for name in PARAMS}


def tasks(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tasks inside the exit handler, by display name."""
    found = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"].values()
    return {task["taskInfo"]["name"]: task for task in found}


def executor(documents: list[dict[str, Any]], task: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    label = documents[0]["components"][task["componentRef"]["name"]]["executorLabel"]
    kubernetes = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return documents[0]["deploymentSpec"]["executors"][label]["container"], kubernetes[label]


def test_committed_packages_are_what_the_code_makes() -> None:
    made = all_packages(read_cluster())
    committed = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.rglob("*.yaml")}
    assert set(committed) == set(made)
    for name, text in made.items():
        assert committed[name] == text, f"{name} is out of date: make compile, and commit pipelines/compiled"


@pytest.mark.parametrize("pipeline", PARAMS)
def test_there_is_a_step_per_entry_and_one_per_part(packages: dict[str, list[dict[str, Any]]], pipeline: str) -> None:
    shards = read_cluster().shards if pipeline not in SCENE_PIPELINES else {}
    expected = set()
    for stage in STAGES:
        for entry in PARAMS[pipeline][stage] if stage in ENTRY_STAGES else [""]:
            name = f"{stage}-{entry}" if entry else stage
            expected |= {name, *(f"{name}-shard-{index}" for index in range(shards.get(stage, 0)))}
    assert set(tasks(packages[pipeline])) == expected


def test_a_step_waits_for_the_parts_of_its_work(packages: dict[str, list[dict[str, Any]]]) -> None:
    found = tasks(packages["multimodal"])
    by_key = {key: task["taskInfo"]["name"] for key, task in components_tasks(packages["multimodal"]).items()}
    for name, task in found.items():
        before = {by_key[key] for key in task.get("dependentTasks", [])}
        _, _, rest = name.partition("-shard-")
        if rest:
            constants = {
                key: one["runtimeValue"]["constant"]
                for key, one in task["inputs"]["parameters"].items()
                if "shard" in key
            }
            assert constants == {"shard": int(rest), "num_shards": 4}
            assert not [one for one in before if "shard" in one], "parts do not wait for each other"
        elif f"{name}-shard-0" in found:
            assert {f"{name}-shard-{index}" for index in range(4)} <= before


def test_without_parts_there_are_the_stages_alone() -> None:
    cluster = read_cluster().model_copy(update={"shards": {"render": 1}})
    found = tasks(read_documents(compiled(build_pipeline("multimodal", PARAMS["multimodal"], cluster))))
    assert not [name for name in found if "shard" in name]


def test_rooms_are_prepared_by_one_step() -> None:
    rooms = {"source": "s3dis", "variant": "aligned"}
    params = PARAMS["pretrain"] | {"prepare": PARAMS["pretrain"]["prepare"] | rooms}
    found = tasks(read_documents(compiled(build_pipeline("pretrain", params, read_cluster()))))
    assert not [name for name in found if "shard" in name]


def test_parts_need_a_volume(tmp_path: Path) -> None:
    text = DEFAULT.read_text()
    file = tmp_path / "cluster.yaml"
    file.write_text(re.sub(r"^storage:.*\n(  .*\n)*", "storage: null\n", text, flags=re.MULTILINE))
    with pytest.raises(ParamsError, match="shards: pods that share a stage need storage"):
        read_cluster(file)
    file.write_text(text.replace("  prepare: 4", "  prepare: 0"))
    with pytest.raises(ParamsError, match=r"shards\.prepare"):
        read_cluster(file)


def test_every_stage_knows_its_run_of_the_pipeline(packages: dict[str, list[dict[str, Any]]]) -> None:
    """The label is the one that KFP's own launcher reads from its pod."""
    for name, task in tasks(packages["multimodal"]).items():
        _, kubernetes = executor(packages["multimodal"], task)
        assert {"name": "KFP_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"} in kubernetes[
            "fieldPathAsEnv"
        ], name


@pytest.mark.parametrize("pipeline", PARAMS)
def test_edges_are_those_of_the_parameters(packages: dict[str, list[dict[str, Any]]], pipeline: str) -> None:
    found = tasks(packages[pipeline])
    by_key = {key: task["taskInfo"]["name"] for key, task in components_tasks(packages[pipeline]).items()}
    for stage, references in REFERENCES.items():
        for entry, values in PARAMS[pipeline][stage].items():
            inputs = found[f"{stage}-{entry}"]["inputs"]["artifacts"]
            producers = {key: by_key[one["taskOutputArtifact"]["producerTask"]] for key, one in inputs.items()}
            assert producers.pop("dataset") == "prepare"
            assert producers == {
                name: next(f"{target}-{values[name]}" for target in targets if values[name] in PARAMS[pipeline][target])
                for name, targets in references.items()
            }


def components_tasks(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return found


@pytest.mark.parametrize("pipeline", PARAMS)
def test_report_sees_everything(packages: dict[str, list[dict[str, Any]]], pipeline: str) -> None:
    params, expected = PARAMS[pipeline], {"dataset", "runs__prepare"}
    for stage in ENTRY_STAGES:
        expected |= {f"runs__{stage}__{entry}" for entry in params[stage]}
    for stage in ("pretrain", "align", "distill"):
        expected |= {f"models__{entry}" for entry in params[stage]}
    for stage in ("align", "finetune", "probe"):
        expected |= {f"results__{stage}__{entry}" for entry in params[stage]}
    for stage, folder in (("render", "views"), ("caption", "captions"), ("embed", "features")):
        expected |= {f"data__{folder}__{entry}" for entry in params[stage]}
    assert set(tasks(packages[pipeline])["report"]["inputs"]["artifacts"]) == expected


@pytest.mark.parametrize("pipeline", PARAMS)
def test_training_is_never_cached_and_data_stages_are(packages: dict[str, list[dict[str, Any]]], pipeline: str) -> None:
    for name, task in tasks(packages[pipeline]).items():
        cached = task["cachingOptions"].get("enableCache", False)
        assert cached == (name.partition("-")[0] not in TRAINING), name


def test_store_of_files_is_not_cached_because_kfp_does_not_see_the_files() -> None:
    params = PARAMS["pretrain"] | {"prepare": PARAMS["pretrain"]["prepare"] | {"source": "folder"}}
    found = tasks(read_documents(compiled(build_pipeline("pretrain", params, read_cluster()))))
    assert "enableCache" not in found["prepare"]["cachingOptions"]
    assert found["report"]["cachingOptions"]["enableCache"]


@pytest.mark.parametrize("pipeline", PARAMS)
def test_steps_on_gpus_have_all_that_they_need(packages: dict[str, list[dict[str, Any]]], pipeline: str) -> None:
    for name, task in tasks(packages[pipeline]).items():
        container, kubernetes = executor(packages[pipeline], task)
        assert kubernetes["activeDeadlineSeconds"], name
        assert task["retryPolicy"]["maxRetryCount"] >= 2, name
        assert kubernetes["pvcMount"][0] | {"pvcNameParameter": 0} == {
            "constant": "pointloom",
            "mountPath": "/pointloom",
            "pvcNameParameter": 0,
        }
        assert {"cpuLimit", "cpuRequest", "memoryLimit", "memoryRequest"} <= set(container["resources"])
        if name.partition("-")[0] in TRAINING:
            assert container["resources"]["accelerator"]["resourceCount"] == "1"
            assert kubernetes["emptyDirMounts"] == [
                {"medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "8Gi", "volumeName": "shm"}
            ]
            assert kubernetes["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


@pytest.mark.parametrize("pipeline", PARAMS)
def test_exit_task_runs_however_the_stages_end_and_gets_their_status(
    packages: dict[str, list[dict[str, Any]]], pipeline: str
) -> None:
    root = packages[pipeline][0]["root"]["dag"]["tasks"]
    assert root["notify"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert root["notify"]["inputs"]["parameters"]["status"]["taskFinalStatus"]["producerTask"] == "exit-handler-1"
    _, kubernetes = executor(packages[pipeline], root["notify"])
    (secret,) = kubernetes["secretAsEnv"]
    assert secret["keyToEnv"] == [{"envVar": "POINTLOOM_WEBHOOK", "secretKey": "url"}]


def test_without_a_webhook_there_is_no_exit_task() -> None:
    cluster = read_cluster().model_copy(update={"webhook": None, "storage": None, "shards": {}})
    spec, platform = read_documents(compiled(build_pipeline("pretrain", PARAMS["pretrain"], cluster)))
    assert "comp-exit-handler-1" not in spec["components"]
    assert "pvcMount" not in str(platform)
    assert spec["root"]["inputDefinitions"]["parameters"]["state"]["defaultValue"] == "/tmp/state"


def test_probes_that_read_with_clip_run_where_clip_is() -> None:
    params = load_params(profile_file("scenes", "paper"))
    documents = read_documents(compiled(build_pipeline("scenes", params, read_cluster(), tag="1-abc")))
    found = {name: executor(documents, task)[0]["image"] for name, task in tasks(documents).items()}
    assert found["probe-msm"].endswith("pointloom-multimodal:1-abc")
    assert found["probe-msm_points20"].endswith("pointloom-train:1-abc")


def test_images_carry_registry_and_tag() -> None:
    cluster = read_cluster()
    images = cluster.images.model_copy(update={"registry": "ghcr.io/me/", "pull_secrets": ["regcred"]})
    graph = build_pipeline(
        "multimodal", PARAMS["multimodal"], cluster.model_copy(update={"images": images}), tag="1-abc"
    )
    spec, platform = read_documents(compiled(graph))
    found = {one["container"]["image"] for one in spec["deploymentSpec"]["executors"].values()}
    assert found == {f"ghcr.io/me/pointloom-{target}:1-abc" for target in ("data", "multimodal", "train")}
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert all(one["imagePullSecret"][0]["secretName"] == "regcred" for one in executors)


def test_secrets_of_this_machine_do_not_enter_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planted = "pl4nted-s3cret"
    for name in ("MLFLOW_TRACKING_PASSWORD", "KF_PIPELINES_TOKEN", "AWS_SECRET_ACCESS_KEY", "POINTLOOM_WEBHOOK"):
        monkeypatch.setenv(name, planted)
    made = all_packages(read_cluster())
    assert not [name for name, text in made.items() if planted in text]
    assert "MLFLOW_TRACKING_PASSWORD" in made["pretrain.yaml"]  # by name, from a secret


@pytest.mark.parametrize(
    "planted",
    ["MLFLOW_TRACKING_TOKEN: pl4nted", "DATABASE: postgresql://me:pl4nted@host/db", "aws_secret_access_key: pl4nted"],
)
def test_secret_written_into_the_cluster_file_is_refused_and_not_repeated(tmp_path: Path, planted: str) -> None:
    text = DEFAULT.read_text()
    file = tmp_path / "cluster.yaml"
    file.write_text(re.sub(r"^env:.*$", f"env:\n  {planted}", text, flags=re.MULTILINE))
    with pytest.raises(ParamsError, match="looks like a secret, and env is readable by everyone") as caught:
        read_cluster(file)
    assert "pl4nted" not in str(caught.value)


def test_cluster_file_is_checked(tmp_path: Path) -> None:
    text = DEFAULT.read_text()
    file = tmp_path / "cluster.yaml"
    file.write_text(text.replace("probe: train", "probe: big").replace("gpus: 1", "gpu: 1"))
    with pytest.raises(ParamsError, match=r"classes\.render\.gpu: Extra inputs are not permitted"):
        read_cluster(file)
    file.write_text(text.replace("probe: train", "probe: big"))
    with pytest.raises(ParamsError, match=r"stages\.probe: 'big' is not one of small, render, train"):
        read_cluster(file)


@pytest.mark.parametrize(("old", "new"), [("image:", "imag:"), ("cpuLimit:", "cpuLimits:"), ("pvcMount:", "pvcMont:")])
def test_misspelt_fields_are_found_in_every_part_of_a_package(old: str, new: str) -> None:
    text = (FOLDER / "pretrain.yaml").read_text()
    check_package(text)
    with pytest.raises(ParamsError, match="not what Kubeflow Pipelines reads"):
        check_package(text.replace(old, new, 1))


def test_names_that_kfp_cannot_take_are_refused() -> None:
    params = PARAMS["pretrain"] | {"pretrain": {"mae-long": PARAMS["pretrain"]["pretrain"]["mae"]}}
    with pytest.raises(ParamsError, match="letters, digits and single underscores"):
        build_pipeline("pretrain", params, read_cluster())
