"""What ``cluster.yaml`` may say, and how a step gets it: image, size, storage, secrets, nodes, retries."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from kfp import kubernetes
from kfp.dsl import PipelineTask
from pydantic import Field, ValidationError, field_validator, model_validator

from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.launch import TRAINING
from pointloom.stages.params import StageParams
from pointloom.stages.read_params import read_yaml
from pointloom.trainjobs.manifest import SecretVariable, TrainJobSettings

DEFAULT = Path(__file__).with_name("cluster.yaml")
SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|WEBHOOK|API_?KEY|ACCESS_?KEY|PRIVATE", re.IGNORECASE)


class Images(StageParams):
    """Where images come from."""

    registry: str
    pull_secrets: list[str]
    pull_policy: Literal["Always", "IfNotPresent", "Never"]


class Storage(StageParams):
    """A volume that all steps share."""

    claim: str = Field(min_length=1)
    mount: str = Field(pattern="^/.+")


class SecretKey(StageParams):
    """One value of a Kubernetes secret."""

    secret: str = Field(min_length=1)
    key: str = Field(min_length=1)


class SecretEnv(SecretKey):
    """An environment variable from a secret."""

    env: str = Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    optional: bool


class Toleration(StageParams):
    """A taint that a step does not mind."""

    key: str
    operator: Literal["Exists", "Equal"]
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Nodes(StageParams):
    """Where steps may run."""

    tolerations: list[Toleration] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)


class StepSize(Nodes):
    """What a step asks for.

    Attributes:
        cpu: Cores, requested and limit.
        memory: Likewise; ``shm`` is part of it.
        gpus: Number of GPUs per node; a training stage starts one process for each.
        nodes: More than one trains on so many machines, as a TrainJob of Kubeflow Trainer that the step starts.
        accelerator: Kubernetes' name of the kind of GPU.
        shm: Size of /dev/shm; None leaves the default of 64 MiB.
        timeout_s: A step is stopped after this time.
        retries: Further attempts after a failure or a lost node, a minute apart at first.
        spot: Whether it may run on spot nodes.
    """

    cpu: str
    memory: str
    gpus: int = Field(default=0, ge=0)
    nodes: int = Field(default=1, ge=1)
    accelerator: str = "nvidia.com/gpu"
    shm: str | None = None
    timeout_s: int = Field(gt=0)
    retries: int = Field(default=2, ge=0)
    spot: bool = False


LAUNCHER = StepSize(cpu="1", memory="2Gi", timeout_s=1)
"""Size of a step that only starts and follows a TrainJob."""

ON_GPU = (*TRAINING, "caption", "embed", "finetune", "probe")
"""Stages that compute with torch, and so take a missing GPU for an error where one was paid for."""


class Cluster(StageParams):
    """All of ``cluster.yaml``."""

    images: Images
    storage: Storage | None
    env: dict[str, str]
    secrets: list[SecretEnv]
    webhook: SecretKey | None
    spot: Nodes
    runtime: str = "torch-distributed"
    classes: dict[str, StepSize]
    stages: dict[str, str]
    shards: dict[Literal["prepare", "render", "caption", "embed"], Annotated[int, Field(ge=1, le=1000)]]

    @field_validator("env")
    @classmethod
    def _without_secrets(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if SECRET_NAME.search(name) or urlsplit(value).password:
                raise ValueError(f"{name} looks like a secret, and env is readable by everyone; move it to secrets")
        return env

    @model_validator(mode="after")
    def _complete(self) -> "Cluster":
        for stage in (*STAGES, "notify"):
            if self.stages.get(stage) not in self.classes:
                raise ValueError(f"stages.{stage}: {self.stages.get(stage)!r} is not one of {', '.join(self.classes)}")
        if self.storage is None and max(self.shards.values(), default=1) > 1:
            raise ValueError("shards: pods that share a stage need storage, a volume that all of them can write")
        for stage, name in self.stages.items():
            if self.classes[name].nodes > 1 and stage not in TRAINING:
                raise ValueError(
                    f"stages.{stage}: only {', '.join(TRAINING)} can have {name!r}, a class of several nodes"
                )
            if self.classes[name].nodes > 1 and self.storage is None:
                raise ValueError(f"stages.{stage}: several nodes need storage, a volume that all of them can write")
        return self


def read_cluster(path: Path = DEFAULT) -> Cluster:
    """Read and check a cluster file.

    Raises:
        ParamsError: It is missing, or says something unknown, unfit or secret.
    """
    try:
        return Cluster.model_validate(read_yaml(path))
    except ValidationError as error:  # values are left out: one of them may be a secret
        lines = [f"  {'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors(include_input=False)]
        raise ParamsError("\n".join([f"{path}: {len(lines)} problem(s)", *lines])) from None


def place(task: PipelineTask, stage: str, cluster: Cluster, *, image: str, cached: bool) -> None:
    """Give a step its image, size, storage, secrets, nodes and retries.

    Args:
        task: The step.
        stage: Its stage, or ``notify``.
        cluster: What there is.
        image: Its image.
        cached: Whether an earlier result may be used again, by the same image on the same inputs.
    """
    size = cluster.classes[cluster.stages[stage]]
    task.set_container_image(image)
    task.set_caching_options(cached)
    pod = LAUNCHER if size.nodes > 1 else size
    task.set_cpu_request(pod.cpu).set_cpu_limit(pod.cpu)
    task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.gpus:
        task.set_accelerator_type(pod.accelerator).set_accelerator_limit(pod.gpus)
    for name, value in training_variables(stage, cluster, image=image).items():
        task.set_env_variable(name, value)
    if size.retries:
        task.set_retry(size.retries, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="3600s")
    kubernetes.set_timeout(task, size.timeout_s)
    kubernetes.set_image_pull_policy(task, cluster.images.pull_policy)
    if cluster.images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.images.pull_secrets)
    if pod.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=pod.shm)
    _place_on_nodes(task, [pod, cluster.spot] if pod.spot else [pod])
    if stage == "notify":
        return
    kubernetes.use_field_path_as_env(task, "KFP_RUN_ID", "metadata.labels['pipeline/runid']")
    if cluster.storage:
        kubernetes.mount_pvc(task, cluster.storage.claim, cluster.storage.mount)
    for name, value in cluster.env.items():
        task.set_env_variable(name, value)
    for found in cluster.secrets:
        kubernetes.use_secret_as_env(task, found.secret, {found.key: found.env}, optional=found.optional)


def training_variables(stage: str, cluster: Cluster, *, image: str) -> dict[str, str]:
    """Return what a stage is told about its GPUs: that it has them, and how many processes or nodes train together."""
    size = cluster.classes[cluster.stages[stage]]
    if size.nodes > 1:
        return {"POINTLOOM_TRAINJOB": _train_job(size, cluster, image=image).model_dump_json()}
    found = {"POINTLOOM_DEVICE": "cuda"} if size.gpus and stage in ON_GPU else {}
    if size.gpus > 1 and stage in TRAINING:
        found["POINTLOOM_PROCESSES"] = str(size.gpus)
    return found


def _train_job(size: StepSize, cluster: Cluster, *, image: str) -> TrainJobSettings:
    assert cluster.storage is not None
    places = [size, cluster.spot] if size.spot else [size]
    return TrainJobSettings(
        image=image,
        runtime=cluster.runtime,
        nodes=size.nodes,
        processes=max(size.gpus, 1),
        gpus=size.gpus,
        accelerator=size.accelerator,
        cpu=size.cpu,
        memory=size.memory,
        shm=size.shm,
        claim=cluster.storage.claim,
        mount=cluster.storage.mount,
        tolerations=[taint.model_dump(exclude_none=True) for place in places for taint in place.tolerations],
        node_selector={label: value for place in places for label, value in place.node_selector.items()},
        env=cluster.env,
        secrets=[SecretVariable.model_validate(secret.model_dump()) for secret in cluster.secrets],
        pull_secrets=cluster.images.pull_secrets,
        timeout_s=size.timeout_s,
    )


def _place_on_nodes(task: PipelineTask, nodes: list[Any]) -> None:
    for place_of in nodes:
        for taint in place_of.tolerations:
            kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
        for label, value in place_of.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
