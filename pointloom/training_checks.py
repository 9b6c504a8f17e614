"""What training needs of a machine and of a cluster: the GPUs that were asked for, room for its state, permissions."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pointloom.errors import ParamsError
from pointloom.examination import Check
from pointloom.trainjobs.api import ApiError, KubernetesApi, own_cluster

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NEEDED = (
    ("trainer.kubeflow.org", "trainjobs", ("create", "get", "delete")),
    ("", "pods", ("list",)),
    ("", "pods/log", ("get",)),
)
ROOM_BYTES = 5e9
PATIENCE_S = 5.0


def check_devices() -> Iterator[Check]:
    """Compare ``POINTLOOM_DEVICE`` and ``POINTLOOM_PROCESSES`` with the GPUs there are; silent where neither is set."""
    from pointloom.stages.launch import wanted_processes

    wanted = os.environ.get("POINTLOOM_DEVICE", "")
    if importlib.util.find_spec("torch") is None or not (wanted or os.environ.get("POINTLOOM_PROCESSES")):
        return
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted not in {"", "cpu", "cuda"}:
        yield Check("bad", "device", f"POINTLOOM_DEVICE={wanted}: expected cuda or cpu")
    elif wanted == "cuda" and not found:
        hint = "give the container a GPU (docker: --gpus all), look at nvidia-smi, or unset it"
        yield Check("bad", "device", f"POINTLOOM_DEVICE=cuda, and torch sees no GPU; {hint}")
    else:
        yield Check("ok", "device", wanted or "the best that there is")
    try:
        processes = wanted_processes()
    except ParamsError as error:
        yield Check("bad", "processes", str(error))
        return
    if processes and found and wanted != "cpu" and processes > found:
        yield Check(
            "bad", "processes", f"POINTLOOM_PROCESSES={processes} and {found} GPUs; one process per GPU at most"
        )
    elif processes:
        yield Check("ok", "processes", f"{processes} train together on this machine")


def check_state(folder: Path) -> Check:
    """Look whether resume state can be written: without it a stopped training starts anew."""
    state = folder / "state"
    place = state if state.is_dir() else folder
    if not os.access(place, os.W_OK):
        return Check("bad", "resume state", f"{place} cannot be written; change its owner, or give --state elsewhere")
    free = shutil.disk_usage(place).free
    text = f"{state}, {free / 1e9:.1f} GB free"
    small = free < ROOM_BYTES
    hint = "; a state has up to 0.5 GB per training, twice while it is replaced"
    return Check("info" if small else "ok", "resume state", text + hint if small else text)


def check_train_jobs() -> Iterator[Check]:
    """Ask the API server whether this account may start, follow and delete TrainJobs; silent outside of a cluster."""
    api = own_cluster(patience_s=PATIENCE_S)
    if api is None:
        return
    try:
        missing = [
            f"{verb} {resource}" for group, resource, verbs in NEEDED for verb in verbs
            if not _may(api, group, resource, verb)
        ]  # fmt: skip
    except ApiError as error:
        yield Check("bad", "TrainJobs", str(error))
        return
    where = f"namespace {api.namespace} of {api.address}"
    if missing:
        hint = "training on several nodes needs a role with them: docs/kubeflow.md"
        yield Check("bad", "TrainJobs", f"{where}: this account may not {', '.join(missing)}; {hint}")
    else:
        yield Check("ok", "TrainJobs", f"{where}: this account may start, follow and delete them")


def _may(api: KubernetesApi, group: str, resource: str, verb: str) -> bool:
    name, _, subresource = resource.partition("/")
    attributes = {
        "namespace": api.namespace, "group": group, "resource": name, "subresource": subresource, "verb": verb,
    }  # fmt: skip
    body = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }  # fmt: skip
    return bool(api.call("POST", REVIEWS, body=body).get("status", {}).get("allowed"))
