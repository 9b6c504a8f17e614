"""What the doctor asks a cluster: is everything there that a cluster file (``pipelines/cluster.yaml``) names?"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pointloom.examination import Check
from pointloom.stages.read_params import read_yaml

TIMEOUT_S = 20.0
KEYS = "go-template={{range $key, $_ := .data}}{{$key}} {{end}}"


def check_cluster(file: Path, namespace: str | None) -> Iterator[Check]:
    """Ask, by kubectl, for volume, secrets, GPUs and Trainer's runtime; nothing is changed, no secret is shown.

    Args:
        file: The cluster file; ``python -m pipelines.submit --dry-run`` checks what it says.
        namespace: Where the steps run; None is kubectl's own.

    Raises:
        ParamsError: The file cannot be read.
    """
    cluster = read_yaml(file)
    asked = ["kubectl", *(["--namespace", namespace] if namespace else [])]
    _, problem = _answer([*asked, "get", "--raw", "/version"])
    if problem:
        yield Check("bad", "cluster", f"no answer: {problem}; try `kubectl cluster-info`, or leave --cluster out")
        return
    if storage := cluster.get("storage"):
        yield _claim(asked, storage["claim"])
    yield from _secrets(asked, cluster)
    used = set(cluster.get("stages", {}).values())
    sizes = [size for name, size in cluster.get("classes", {}).items() if name in used]
    for accelerator in sorted({size.get("accelerator", "nvidia.com/gpu") for size in sizes if size.get("gpus")}):
        yield _gpus(asked, accelerator)
    if any(size.get("nodes", 1) > 1 for size in sizes):
        yield _runtime(asked, cluster.get("runtime", "torch-distributed"))


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


def _gpus(asked: Sequence[str], accelerator: str) -> Check:
    text, problem = _answer([*asked, "get", "nodes", "--output", "json"])
    if problem:
        return Check("info", "GPUs", f"not seen: {problem}")
    counts = [int(node["status"].get("allocatable", {}).get(accelerator, 0)) for node in json.loads(text)["items"]]
    if not any(counts):
        hint = "install the device plugin, wait for the autoscaler, or set gpus: 0"
        return Check("bad", "GPUs", f"no node offers {accelerator}; {hint}")
    return Check("ok", "GPUs", f"{sum(counts)} x {accelerator} on {sum(map(bool, counts))} of {len(counts)} nodes")


def _runtime(asked: Sequence[str], name: str) -> Check:
    _, problem = _answer([*asked, "get", "clustertrainingruntimes.trainer.kubeflow.org", name, "--output", "name"])
    if problem:
        return Check("bad", "runtime", f"{name}: {problem}; steps of several nodes need Kubeflow Trainer 2")
    return Check("ok", "runtime", f"{name} of Kubeflow Trainer is there")


def _answer(command: Sequence[str]) -> tuple[str, str]:
    """Return what kubectl printed, and its last words where it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except FileNotFoundError:
        return "", "kubectl is not installed"
    except subprocess.TimeoutExpired:
        return "", f"nothing within {TIMEOUT_S:.0f} s"
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return (done.stdout, "") if done.returncode == 0 else ("", said[-1][:200])
