"""Look at the machine: what is installed, what can be used, what is missing and how to get it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from pointloom._version import __version__
from pointloom.cluster_checks import check_kubectl, check_login, check_parts
from pointloom.errors import ParamsError, PointloomError, WorkspaceError
from pointloom.examination import Check
from pointloom.image_checks import ask_docker
from pointloom.render.egl import EGL_HINT
from pointloom.run import disk_needed
from pointloom.services import check_kubeflow, check_remotes, check_tracking_server
from pointloom.stages.sections import check_params
from pointloom.train.spool import tracking_target
from pointloom.training_checks import check_devices, check_state, check_train_jobs
from pointloom.ui import choose_port
from pointloom.workspace import Workspace, open_workspace

CORE = ("torch", "numpy", "numba", "h5py", "trimesh", "scikit-learn", "mlflow-skinny", "pydantic")
EXTRAS = {
    "workspace": ("dvc", "mlflow"),
    "multimodal": ("moderngl", "embreex", "open-clip-torch", "torchvision", "transformers"),
    "dev": ("pytest", "ruff", "mypy"),
}


def examine(folder: Path) -> Iterator[Check]:
    """Yield one check after another; none of them changes anything."""
    yield _python()
    yield _packages()
    yield from _extras()
    yield _git()
    yield _gpu()
    yield _renderer()
    yield _cores()
    yield _allocator()
    yield _shared_memory()
    yield from check_devices()
    yield _port()
    yield from _docker()
    yield check_kubectl()
    yield from check_login()
    yield from _kubeflow()
    yield from check_train_jobs()
    yield from _workspace(folder)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    text = f"pointloom {__version__}, Python {platform.python_version()}, {platform.platform()}"
    known = platform.system() == "Linux" and platform.machine() == "x86_64"
    return Check("ok" if known else "info", "machine", text if known else f"{text}; tested on Linux x86-64 only")


def _packages() -> Check:
    found = {package: _version(package) for package in CORE}
    missing = [package for package, version in found.items() if version is None]
    if missing:
        return Check("bad", "packages", f"missing: {', '.join(missing)}; run: pip install pointloom")
    return Check("ok", "packages", ", ".join(f"{package} {version}" for package, version in found.items()))


def _extras() -> Iterator[Check]:
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if _version(package) is None]
        if missing:
            text = f'without {", ".join(missing)}; to get it: pip install "pointloom[{extra}]"'
            yield Check("info", f"extra {extra}", text)
        else:
            yield Check("ok", f"extra {extra}", ", ".join(f"{package} {_version(package)}" for package in packages))


def _git() -> Check:
    if shutil.which("git"):
        return Check("ok", "git", str(shutil.which("git")))
    return Check("info", "git", "not found: runs record no revision and `dvc exp` does not work; install git")


def _gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("bad", "GPU", "torch is missing; run: pip install pointloom")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("ok", "GPU", f"{', '.join(names)} (CUDA {torch.version.cuda})")
    build = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
    return Check("info", "GPU", f"none usable ({build}); everything runs on the CPU")


def _renderer() -> Check:
    name = "renderer"
    try:
        from pointloom.render.backend import choose_renderer

        chosen = choose_renderer("auto", require_gpu=False)
    except (PointloomError, ImportError) as error:
        return Check("info", name, f"`pointloom render` cannot draw meshes: {error}")
    if chosen.name == "egl":
        return Check("ok", name, f"EGL on {chosen.device}")
    return Check("info", name, f"no EGL, the slower ray caster draws ({chosen.device}); to get EGL: {EGL_HINT}")


def _cores() -> Check:
    usable, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    busy = load > 0.5 * usable
    text = f"{usable} usable cores, load {load:.1f}"
    return Check("info" if busy else "ok", "CPU", f"{text}: other work slows runs down" if busy else text)


def _allocator() -> Check:
    if platform.libc_ver()[0] == "glibc":
        text = "glibc: training keeps freed memory for its next step, which makes steps 1.04 to 1.2 times faster"
        return Check("ok", "allocator", text)
    return Check("info", "allocator", "not glibc: training may be slower, freed memory goes back at every step")


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("info", "shared memory", "no /dev/shm")
    total = shutil.disk_usage(folder).total
    small = total < 1e9
    text = f"/dev/shm has {total / 1e9:.1f} GB"
    hint = "in Docker give --shm-size 2g, on a cluster see shm in pipelines/cluster.yaml"
    return Check("info" if small else "ok", "shared memory", f"{text}; {hint}" if small else text)


def _port() -> Check:
    try:
        return Check("ok", "UI port", f"{choose_port(None)} is free for `pointloom ui`")
    except WorkspaceError as error:
        return Check("info", "UI port", str(error))


def _docker() -> Iterator[Check]:
    if not shutil.which("docker"):
        yield Check("info", "Docker", "not found; images and rehearsals need it: install Docker Engine")
        return
    version = ask_docker("version", "--format", "{{.Server.Version}}")
    if version is None:
        yield Check("info", "Docker", "no engine answers; start it, or join its group: sudo usermod -aG docker $USER")
        return
    yield Check("ok", "Docker", f"engine {version}")
    found = ask_docker("image", "ls", "--filter", "reference=*pointloom-*", "--format", "{{.Repository}}:{{.Tag}}")
    names = [name for name in (found or "").split() if name.endswith(__version__) or f":{__version__}-" in name]
    text = ", ".join(names) or f"none of version {__version__} is here; to build them: make images"
    yield Check("ok" if names else "info", "images", text)


def _kubeflow() -> Iterator[Check]:
    if endpoint := os.environ.get("KF_PIPELINES_ENDPOINT"):
        yield check_kubeflow(endpoint)


def _workspace(folder: Path) -> Iterator[Check]:
    try:
        workspace = open_workspace(folder)
    except WorkspaceError as error:
        yield Check("info", "workspace", str(error))
        return
    yield Check("ok", "workspace", str(workspace.folder))
    yield check_state(workspace.folder)
    if workspace.source.is_dir():
        yield Check("ok", "raw shapes", str(workspace.source))
    else:
        yield Check("bad", "raw shapes", f"{workspace.source} is not there")
    yield from _params_and_disk(workspace)
    yield _tracking(workspace.folder)
    yield from check_remotes(workspace.folder)
    yield from check_parts(workspace.folder / "state")


def _params_and_disk(workspace: Workspace) -> Iterator[Check]:
    try:
        params = check_params(workspace.folder)
    except ParamsError as error:
        yield Check("bad", "parameters", str(error))
        return
    yield Check("ok", "parameters", f"{workspace.folder / 'params.yaml'} is complete and valid")
    needed, free = disk_needed(workspace, params), shutil.disk_usage(workspace.folder).free
    text = f"a run writes at most about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    yield Check("ok" if free >= needed else "bad", "disk", text)


def _tracking(folder: Path) -> Check:
    target = tracking_target(folder)
    if target is None:
        return Check("info", "tracking", "off: no MLFLOW_TRACKING_URI and no tracking_uri in workspace.yaml")
    waiting = len(list((folder / "state" / "tracking").glob("*.jsonl")))
    left = f"; {waiting} runs wait to be sent" if waiting else ""
    if target.uri.startswith("sqlite:"):
        missing = importlib.util.find_spec("sqlalchemy") is None
        hint = '; needs: pip install "pointloom[workspace]"' if missing else ""
        return Check("bad" if missing else "ok", "tracking", f"{target.uri}{left}{hint}")
    return check_tracking_server(target.uri, waiting=left)
