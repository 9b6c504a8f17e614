"""Several GPUs and nodes, from one place in ``cluster.yaml``; what is sent is a TrainJob to Kubeflow too."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kfp", reason="kfp lives in .venv-kubeflow: make test-kubeflow")

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from pipelines.cluster import DEFAULT, Cluster, read_cluster, training_variables
from pipelines.compile import compiled, read_documents
from pipelines.graph import build_pipeline
from pipelines.settings import load_params, profile_file
from pointloom.errors import ParamsError
from pointloom.trainjobs.manifest import TrainJobSettings, train_job
from tests.pipelines.test_compile import executor, tasks

PARAMS = load_params(profile_file("pretrain", "smoke"))


def cluster_with(folder: Path, **of_training: Any) -> Cluster:
    """Return the committed cluster with another class for ``pretrain``."""
    content = yaml.safe_load(DEFAULT.read_text())
    content["classes"]["large"] = {**content["classes"]["train"], **of_training}
    content["stages"]["pretrain"] = "large"
    (folder / "cluster.yaml").write_text(yaml.safe_dump(content))
    return read_cluster(folder / "cluster.yaml")


def step(cluster: Cluster) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return container, Kubernetes settings and variables of a step of stage pretrain."""
    documents = read_documents(compiled(build_pipeline("pretrain", PARAMS, cluster, tag="1-abc")))
    container, kubernetes = executor(documents, tasks(documents)["pretrain-mae"])
    return container, kubernetes, {each["name"]: each["value"] for each in container.get("env", [])}


def test_step_with_one_gpu_says_that_it_needs_it_and_without_does_not(tmp_path: Path) -> None:
    _, _, variables = step(read_cluster())
    assert variables["POINTLOOM_DEVICE"] == "cuda"
    assert "POINTLOOM_PROCESSES" not in variables
    assert "POINTLOOM_DEVICE" not in step(cluster_with(tmp_path, gpus=0))[2]
    assert training_variables("render", read_cluster(), image="x") == {}


def test_step_with_several_gpus_starts_a_process_for_each(tmp_path: Path) -> None:
    container, _, variables = step(cluster_with(tmp_path, gpus=4))
    assert variables["POINTLOOM_PROCESSES"] == "4"
    assert container["resources"]["accelerator"]["resourceCount"] == "4"


def test_step_with_several_nodes_is_a_small_pod_that_describes_them(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path, gpus=4, nodes=2)
    container, kubernetes, variables = step(cluster)
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceCpuLimit"] == "1"
    assert not kubernetes.get("tolerations"), "the pod that follows the job is not put on nodes that are taken away"
    settings = TrainJobSettings.model_validate_json(variables["POINTLOOM_TRAINJOB"])
    assert (settings.nodes, settings.processes, settings.gpus) == (2, 4, 4)
    assert settings.image.endswith("pointloom-train:1-abc")
    assert settings.tolerations[0]["key"] == "cloud.google.com/gke-spot"
    assert settings.secrets[0].secret == "pointloom-mlflow"
    assert settings.env == cluster.env


def test_manifest_is_a_train_job_and_nothing_in_it_is_unknown(tmp_path: Path) -> None:
    """Kubeflow's own models drop what they do not know: so what comes back must be what went in."""
    text = training_variables("pretrain", cluster_with(tmp_path, gpus=4, nodes=2), image="i:1")["POINTLOOM_TRAINJOB"]
    settings = TrainJobSettings.model_validate_json(text)
    manifest = train_job("pointloom-pretrain-1", settings, ["pretrain", "--params", "{}"], namespace="team")
    read = TrainerV1alpha1TrainJob.from_dict(manifest)
    assert read is not None
    assert json.loads(json.dumps(read.to_dict())) == manifest
    manifest["spec"]["trainer"]["numNode"] = 3
    assert TrainerV1alpha1TrainJob.from_dict(manifest).to_dict() != manifest


def test_several_nodes_are_refused_where_they_make_no_sense(tmp_path: Path) -> None:
    content = yaml.safe_load(DEFAULT.read_text())
    content["classes"]["train"]["nodes"] = 2
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match=r"stages.caption: only pretrain, align, distill can have 'train'"):
        read_cluster(tmp_path / "cluster.yaml")
    content["stages"] |= dict.fromkeys(("caption", "embed", "finetune", "probe"), "small")
    content["storage"] = None
    content["shards"] = {}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError, match="several nodes need storage"):
        read_cluster(tmp_path / "cluster.yaml")
