"""What the doctor asks about images: has the registry, or else this machine's engine, those that steps run in?"""

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from pointloom._version import __version__
from pointloom.examination import Check
from pointloom.services import ask
from pointloom.stages.runs import code_revision

IMAGES = ("pointloom-data", "pointloom-train", "pointloom-multimodal")
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def check_images(images: Mapping[str, Any], tag: str | None) -> Iterator[Check]:
    """Ask the registry for the manifest of every image, without a login; nothing is pulled.

    Args:
        images: ``images`` of a cluster file.
        tag: Tag of the images; None is the one that ``python -m pipelines.submit`` would use.
    """
    tag = tag or _tag()
    registry = (images.get("registry") or "").rstrip("/")
    if tag is None:
        yield Check("info", "images", "not asked for: no git revision to name them by; give --image-tag")
    elif registry:
        yield from _in_registry(registry, tag, images.get("pull_secrets") or [])
    else:
        yield _in_engine(tag)


def ask_docker(*arguments: str) -> str | None:
    """Return what Docker's command printed, or None where it failed."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def manifest_address(registry: str, name: str, tag: str) -> str:
    """Return where a registry has an image's manifest; names without a host are Docker Hub's, as Docker reads them."""
    host, _, path = registry.partition("/")
    if not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", registry
    scheme = "http" if host.partition(":")[0] in {"localhost", "127.0.0.1"} else "https"
    host = "registry-1.docker.io" if host == "docker.io" else host
    return f"{scheme}://{host}/v2/{path + '/' if path else ''}{name}/manifests/{tag}"


def _tag() -> str | None:
    revision = code_revision()["revision"]
    return f"{__version__}-{revision[:12]}" if revision else None


def _in_registry(registry: str, tag: str, pull_secrets: list[str]) -> Iterator[Check]:
    decides = f"pull secret {', '.join(pull_secrets)} decides" if pull_secrets else "images.pull_secrets names none"
    for name in IMAGES:
        image = f"{registry}/{name}:{tag}"
        status, problem = ask(manifest_address(registry, name, tag), {"Accept": ", ".join(MANIFESTS)})
        if status is None:
            hint = "the cluster may see it; if not, correct images.registry"
            yield Check("info", "images", f"{registry} does not answer here ({problem}); {hint}")
            return
        if status == 200:
            yield Check("ok", "images", f"{image} is in the registry")
        elif status in {401, 403}:
            look = f"to look with your own: docker manifest inspect {image}"
            yield Check("info", "images", f"{image}: the registry asks for a login, {decides}; {look}")
        elif status == 404:
            push = f"make images TAG={tag} && docker tag {name}:{tag} {image} && docker push {image}"
            text = f"{image} is not in the registry; to build and push it: {push}"
            if name == "pointloom-multimodal":
                yield Check("info", "images", f"{text} (only the pipeline multimodal needs it)")
            else:
                yield Check("bad", "images", text)
        else:
            yield Check("info", "images", f"{image}: the registry answers status {status}")


def _in_engine(tag: str) -> Check:
    text = "no images.registry: nodes have only what is loaded into them (kind load docker-image); the engine here has"
    found = ask_docker("image", "ls", "--filter", f"reference=pointloom-*:{tag}", "--format", "{{.Repository}}")
    if found is None:
        return Check("info", "images", f"{text} not answered")
    if missing := [name for name in IMAGES if name not in found.split()]:
        return Check("info", "images", f"{text} no {', '.join(missing)} of {tag}; to build: make images TAG={tag}")
    return Check("info", "images", f"{text} all of {tag}")
