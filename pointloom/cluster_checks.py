"""What the doctor looks at for clusters and teams: kubectl, logins in addresses, stages of which parts are done."""

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pointloom.examination import Check

PART = re.compile(r"(?P<name>\w+)-(?P<index>\d+)-of-(?P<count>\d+)\.journal")


def check_kubectl() -> Check:
    """Look for kubectl and ask it which cluster it means; nothing is sent to the cluster."""
    if not shutil.which("kubectl"):
        return Check("info", "kubectl", "not found; only the set-up of a cluster needs it (docs/cluster.md)")
    try:
        command = ["kubectl", "config", "current-context"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return Check("info", "kubectl", "there, but for no cluster; choose one: kubectl config use-context NAME")
    return Check("ok", "kubectl", f"context {done.stdout.strip()}")


def check_login() -> Iterator[Check]:
    """Warn of a password in an address: lists of variables show it, and it is easily copied."""
    for name in ("MLFLOW_TRACKING_URI", "KF_PIPELINES_ENDPOINT"):
        if urlsplit(os.environ.get(name, "")).password:
            better = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if "MLFLOW" in name else "--token-file"
            yield Check("info", "login", f"{name} holds a password; better is {better}")


def check_parts(state: Path) -> Iterator[Check]:
    """Say which stages were begun in parts and not yet brought together.

    Args:
        state: Folder of resume state.
    """
    found: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path in state.rglob("*-of-*.journal"):
        if match := PART.fullmatch(path.name):
            stage = path.relative_to(state).parts[0]
            found[stage, int(match["count"])].add(int(match["index"]))
    for (stage, count), parts in sorted(found.items()):
        text = f"{stage}: {len(parts)} of {count} were begun; once they are done, run the stage without --shard"
        yield Check("info", "parts", text)
