"""What the doctor asks a cluster: is everything there that a cluster file (``pipelines/cluster.yaml``) names?"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pointloom.examination import Check
from pointloom.image_checks import check_images
from pointloom.stages.read_params import read_yaml
from pointloom.training_checks import NEEDED

TIMEOUT_S = 20.0
GPU = "nvidia.com/gpu"
ACCOUNTS = ("default-editor", "pipeline-runner")
"""Whose rights steps have: in the namespace of a profile, and where Kubeflow Pipelines was installed alone."""

KEYS = "go-template={{range $key, $_ := .data}}{{$key}} {{end}}"


def check_cluster(file: Path, namespace: str | None, tag: str | None = None) -> Iterator[Check]:
    """Ask for images, and by kubectl for all else that steps need; nothing is changed, no secret is shown.

    Args:
        file: The cluster file; ``python -m pipelines.submit --dry-run`` checks what it says.
        namespace: Where the steps run; None is kubectl's own.
        tag: Tag of the images; None is version and git revision.

    Raises:
        ParamsError: The file cannot be read.
    """
    cluster = read_yaml(file)
    yield from check_images(cluster.get("images", {}), tag)
    asked = ["kubectl", *(["--namespace", namespace] if namespace else [])]
    _, problem = _answer([*asked, "get", "--raw", "/version"])
    if problem:
        yield Check("bad", "cluster", f"no answer: {problem}; try `kubectl cluster-info`, or leave --cluster out")
        return
    if storage := cluster.get("storage"):
        yield _claim(asked, storage["claim"])
    yield from _secrets(asked, cluster)
    used = set(cluster.get("stages", {}).values())
    sizes = {name: size for name, size in cluster.get("classes", {}).items() if name in used}
    if on_gpus := {name: size for name, size in sizes.items() if size.get("gpus")}:
        yield from _gpus(asked, on_gpus, cluster.get("spot", {}))
    if any(size.get("nodes", 1) > 1 for size in sizes.values()):
        yield _runtime(asked, cluster.get("runtime", "torch-distributed"))
        yield _permissions(asked)


def _claim(asked: Sequence[str], name: str) -> Check:
    text, problem = _answer([*asked, "get", "pvc", name, "--output", "json"])
    if problem:
        return Check("bad", "volume", f"claim {name}: {problem}; make it: docs/cluster.md, section 4")
    claim = json.loads(text)
    modes, phase = claim["spec"].get("accessModes", []), claim.get("status", {}).get("phase", "unknown")
    if "ReadWriteMany" not in modes:
        return Check("bad", "volume", f"claim {name} is {', '.join(modes)}; steps on several nodes need ReadWriteMany")
    hint = "" if phase == "Bound" else "; `kubectl describe pvc` says what it waits for"
    return Check("info" if hint else "ok", "volume", f"claim {name} is {phase}{hint}")


def _secrets(asked: Sequence[str], cluster: Mapping[str, Any]) -> Iterator[Check]:
    """Look for the keys of secrets; kubectl is asked for names alone."""
    named = [(each["secret"], each["key"], each.get("optional", False)) for each in cluster.get("secrets", [])]
    if webhook := cluster.get("webhook"):
        named.append((webhook["secret"], webhook["key"], False))
    named += [(name, ".dockerconfigjson", False) for name in cluster.get("images", {}).get("pull_secrets", [])]
    for secret in dict.fromkeys(name for name, _, _ in named):
        text, problem = _answer([*asked, "get", "secret", secret, "--output", KEYS])
        wanted = {key: optional for name, key, optional in named if name == secret}
        missing = [key for key in wanted if key not in text.split()]
        if not missing:
            yield Check("ok", "secret", f"{secret} has {', '.join(wanted)}")
            continue
        command = f"kubectl create secret generic {secret} " + " ".join(f"--from-literal={key}=..." for key in wanted)
        needed = not all(wanted[key] for key in missing)
        yield Check(
            "bad" if needed else "info",
            "secret",
            f"{secret}: {problem or 'without ' + ', '.join(missing)}; make it: {command}",
        )


def _gpus(asked: Sequence[str], sizes: Mapping[str, Any], spot: Mapping[str, Any]) -> Iterator[Check]:
    text, problem = _answer([*asked, "get", "nodes", "--output", "json"])
    if problem:
        yield Check("info", "GPUs", f"not seen: {problem}")
        return
    nodes = json.loads(text)["items"]
    for accelerator in sorted({size.get("accelerator", GPU) for size in sizes.values()}):
        counts = [_count(node, accelerator) for node in nodes]
        if not any(counts):
            hint = "install the device plugin, wait for the autoscaler, or set gpus: 0"
            yield Check("bad", "GPUs", f"no node offers {accelerator}; {hint}")
            continue
        yield Check("ok", "GPUs", f"{sum(counts)} x {accelerator} on {sum(map(bool, counts))} of {len(nodes)} nodes")
        for name, size in sizes.items():
            if size.get("accelerator", GPU) == accelerator:
                yield _place(nodes, name, size, [size, spot] if size.get("spot") else [size])


def _count(node: Mapping[str, Any], accelerator: str) -> int:
    return int(node["status"].get("allocatable", {}).get(accelerator, 0))


def _place(nodes: Sequence[Any], name: str, size: Mapping[str, Any], places: Sequence[Mapping[str, Any]]) -> Check:
    """Look for nodes with a class's GPUs and labels, and for taints on them that it does not tolerate."""
    accelerator, wanted = size.get("accelerator", GPU), size.get("nodes", 1)
    labels = {label: value for place in places for label, value in place.get("node_selector", {}).items()}
    tolerations = [toleration for place in places for toleration in place.get("tolerations", [])]
    fit = [
        node for node in nodes
        if _count(node, accelerator) >= size["gpus"] and labels.items() <= node["metadata"].get("labels", {}).items()
    ]  # fmt: skip
    if len(fit) < wanted:
        what = " ".join([f"{size['gpus']} x {accelerator}", *(f"{label}={value}" for label, value in labels.items())])
        hint = "change its gpus, nodes or node_selector, or wait for the autoscaler"
        return Check("bad", "GPU nodes", f"{name}: needs {wanted} with {what}, there are {len(fit)}; {hint}")
    minded = [[taint for taint in node["spec"].get("taints", []) if _minds(taint, tolerations)] for node in fit]
    if minded.count([]) >= wanted:
        return Check("ok", "GPU nodes", f"{name}: may run on {minded.count([])} of them")
    taints = {f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for found in minded for taint in found}
    text = f"{name}: does not tolerate {', '.join(sorted(taints))}; add it to classes.{name}.tolerations"
    if all(taint["key"] == accelerator for found in minded for taint in found):
        return Check("info", "GPU nodes", f"{text}, unless the cluster does (ExtendedResourceToleration, as on GKE)")
    return Check("bad", "GPU nodes", text)


def _minds(taint: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a taint keeps a pod away: Kubernetes' rule for tolerations."""
    return taint["effect"] != "PreferNoSchedule" and not any(
        each.get("effect") in {None, taint["effect"]}
        and each.get("key") in {"", taint["key"]}
        and (each.get("operator") == "Exists" or (each.get("value") or "") == taint.get("value", ""))
        for each in tolerations
    )


def _runtime(asked: Sequence[str], name: str) -> Check:
    _, problem = _answer([*asked, "get", "clustertrainingruntimes.trainer.kubeflow.org", name, "--output", "name"])
    if problem:
        return Check("bad", "runtime", f"{name}: {problem}; steps of several nodes need Kubeflow Trainer 2")
    return Check("ok", "runtime", f"{name} of Kubeflow Trainer is there")


def _permissions(asked: Sequence[str]) -> Check:
    """Ask in the name of the account that steps have; an administrator's login may do so."""
    for account in ACCOUNTS:
        said, _ = _answer([*asked, "get", "serviceaccount", account, "--output", "jsonpath={.metadata.namespace}"])
        if place := said.strip():
            break
    else:
        text = f"no account {' or '.join(ACCOUNTS)} in the namespace: is it the one that steps run in (--namespace)?"
        return Check("info", "TrainJobs", text)
    missing = []
    for group, resource, verbs in NEEDED:
        name, _, part = resource.partition("/")
        what = [f"{name}.{group}" if group else name, *([f"--subresource={part}"] if part else [])]
        for verb in verbs:
            command = [*asked, "auth", "can-i", verb, *what, "--as", f"system:serviceaccount:{place}:{account}"]
            said, problem = _answer(command)
            if said.startswith("no"):
                missing.append(f"{verb} {resource}")
            elif problem:
                hint = "`pointloom doctor` in a pod of that account asks for itself"
                return Check("info", "TrainJobs", f"not asked in the name of {account}: {problem}; {hint}")
    if missing:
        hint = "training on several nodes needs a role with them: docs/kubeflow.md"
        return Check("bad", "TrainJobs", f"account {account} of {place} may not {', '.join(missing)}; {hint}")
    return Check("ok", "TrainJobs", f"account {account} of {place} may start, follow and delete them")


def _answer(command: Sequence[str]) -> tuple[str, str]:
    """Return what kubectl printed, and its last words where it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except FileNotFoundError:
        return "", "kubectl is not installed"
    except subprocess.TimeoutExpired:
        return "", f"nothing within {TIMEOUT_S:.0f} s"
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return done.stdout, "" if done.returncode == 0 else said[-1][:200]
