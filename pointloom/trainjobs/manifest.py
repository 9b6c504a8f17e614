"""A training stage as a TrainJob (``trainer.kubeflow.org/v1alpha1``)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from pointloom.stages.params import StageParams

GROUP = "trainer.kubeflow.org"
VERSION = "v1alpha1"
NODE = "node"
"""Name that Kubeflow's runtimes give to the job of the training machines and to its container."""

PASSED_ON = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE"),  # of KFP's MLflow plugin
    *("POINTLOOM_PARENT_RUN_ID", "KFP_RUN_ID"),
)
"""What only the pod that starts the job knows: variables that lead to the run it is part of."""

WITHOUT_PROXY = {"sidecar.istio.io/inject": "false"}  # a sidecar would keep a finished pod alive


class SecretVariable(StageParams):
    """An environment variable from a secret of the cluster."""

    secret: str
    key: str
    env: str
    optional: bool


class TrainJobSettings(StageParams):
    """Where and how large: ``POINTLOOM_TRAINJOB``, which ``pipelines/cluster.py`` makes of ``cluster.yaml``."""

    image: str
    runtime: str = Field(description="ClusterTrainingRuntime")
    nodes: int = Field(ge=1)
    processes: int = Field(ge=1, description="training processes per node, one per GPU")
    gpus: int = Field(ge=0, description="GPUs per node")
    accelerator: str
    cpu: str
    memory: str
    shm: str | None
    claim: str = Field(description="volume that all pods can write")
    mount: str
    tolerations: list[dict[str, str]]
    node_selector: dict[str, str]
    env: dict[str, str]
    secrets: list[SecretVariable]
    pull_secrets: list[str]
    timeout_s: int = Field(gt=0)


def train_job(name: str, settings: TrainJobSettings, words: Sequence[str], *, namespace: str) -> dict[str, Any]:
    """Return the manifest of a TrainJob that runs ``pointloom WORDS`` on every node."""
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    if settings.gpus:
        resources[settings.accelerator] = str(settings.gpus)
    trainer = {
        "image": settings.image,
        "command": ["pointloom"],
        "args": list(words),
        "env": _environment(settings),
        "numNodes": settings.nodes,
        "numProcPerNode": settings.processes,
        "resourcesPerNode": {"requests": resources, "limits": resources},
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "pointloom", "app.kubernetes.io/component": words[0]},
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": settings.runtime},
            "activeDeadlineSeconds": settings.timeout_s,
            "trainer": trainer,
            "runtimePatches": [_patch(settings)],
        },
    }


def _environment(settings: TrainJobSettings) -> list[dict[str, Any]]:
    found: dict[str, Any] = {name: {"value": value} for name, value in settings.env.items()}
    for secret in settings.secrets:
        reference = {"name": secret.secret, "key": secret.key, "optional": secret.optional}
        found[secret.env] = {"valueFrom": {"secretKeyRef": reference}}
    found["POINTLOOM_DEVICE"] = {"value": "cuda" if settings.gpus else "cpu"}
    here = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
    found |= {name: {"value": value} for name, value in here.items() if not urlsplit(value).password}
    return [{"name": name, **value} for name, value in found.items()]


def _patch(settings: TrainJobSettings) -> dict[str, Any]:
    """Return what the runtime does not know: volumes, nodes, secrets of registries."""
    volumes: list[dict[str, Any]] = [{"name": "shared", "persistentVolumeClaim": {"claimName": settings.claim}}]
    mounts = [{"name": "shared", "mountPath": settings.mount}]
    if settings.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    pod: dict[str, Any] = {"volumes": volumes, "containers": [{"name": NODE, "volumeMounts": mounts}]}
    optional: Mapping[str, Any] = {
        "tolerations": settings.tolerations,
        "nodeSelector": settings.node_selector,
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    pod |= {key: value for key, value in optional.items() if value}
    template = {"metadata": {"annotations": WITHOUT_PROXY}, "spec": pod}
    job = {"name": NODE, "template": {"spec": {"template": template}}}
    return {
        "manager": "pointloom.io/launcher",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}},
    }
