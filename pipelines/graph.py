"""The graph of stages as a Kubeflow pipeline; which steps there are follows from the sections of the parameters."""

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import Artifact, Dataset, Metrics, Model, PipelineTask
from kfp.dsl.base_component import BaseComponent

from components.align import align
from components.caption import caption, caption_shard
from components.distill import distill
from components.embed import embed, embed_shard
from components.finetune import finetune
from components.notify import notify
from components.prepare import prepare, prepare_shard
from components.pretrain import pretrain
from components.probe import probe
from components.render import render, render_shard
from components.report import report_of
from pipelines.cluster import Cluster, place
from pointloom._version import __version__
from pointloom.errors import ParamsError
from pointloom.stages import STAGES
from pointloom.stages.prepare import SCENE_SOURCES
from pointloom.stages.sections import ENTRY_STAGES

Params = Mapping[str, Any]
ENTRY = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
DESCRIPTIONS = {
    "pretrain": "Prepare shapes, pre-train an encoder without labels, fine-tune and probe it, report.",
    "systems": "Prepare shapes, pre-train by three methods without labels side by side, fine-tune, probe, report.",
    "multimodal": "The same with views, captions and teacher features: align with text and images, then distil.",
    "scenes": "Prepare scenes, pre-train on them without labels, segment, probe, report.",
    "detection": "Prepare scenes, pre-train a detector's backbone without labels, detect objects, probe, report.",
}


CACHED = ("prepare", "render", "caption", "embed", "report")
"""Stages whose earlier result KFP may use again; a training stage has its own resume state and is never cached."""


SHARDS: dict[str, BaseComponent] = {
    "prepare": prepare_shard,
    "render": render_shard,
    "caption": caption_shard,
    "embed": embed_shard,
}
"""Stages that several pods can share, and the component that does a part."""


class Steps:
    """The steps of the pipeline that is being defined, and what the report will look at.

    Args:
        cluster: Where they run.
        tag: Tag of the images.
        arguments: The pipeline's own arguments by name.
        params: All sections.
    """

    def __init__(self, cluster: Cluster, tag: str, arguments: Mapping[str, Any], params: Params) -> None:
        self.cluster = cluster
        # KFP knows the folder of raw shapes, not what is in it: a cached store could be that of other files.
        self.cached = CACHED if params["prepare"]["source"] in {"synthetic", "synthetic_rooms"} else CACHED[1:]
        split = params["prepare"]["source"] not in SCENE_SOURCES
        self.shards: dict[str, int] = {stage: count for stage, count in cluster.shards.items() if split}
        self.tag = tag
        self.params = params
        self.arguments = arguments
        self.gathered: dict[str, tuple[type[Artifact], Any]] = {}

    def add(self, component: BaseComponent, stage: str, entry: str = "", **inputs: Any) -> Any:
        """Add a step, and before it the steps that share its work; returns its outputs by name."""
        if entry:
            inputs["name"] = entry
        if "state" in component.component_spec.inputs:
            inputs["state"] = self.arguments["state"]
        inputs["params"] = self.arguments[argument(stage, entry)]
        title = f"{stage}-{entry}" if entry else stage
        count = self.shards.get(stage, 1)
        parts = [
            self._task(SHARDS[stage], stage, f"{title}-shard-{index}", shard=index, num_shards=count, **inputs)
            for index in range(count if count > 1 else 0)
        ]
        task = self._task(component, stage, title, **inputs).after(*parts)
        self.keep(Metrics, task.outputs["metrics"], "runs", stage, entry)
        return task.outputs

    def _task(self, component: BaseComponent, stage: str, title: str, **inputs: Any) -> PipelineTask:
        task: PipelineTask = component(**inputs)
        task.set_display_name(title)
        reads = stage == "probe" and reads_with_clip(self.params["probe"][inputs["name"]])
        image = image_of(embed if reads else component, self.cluster, self.tag)
        place(task, stage, self.cluster, image=image, cached=stage in self.cached)
        return task

    def keep(self, kind: type[Artifact], made: Any, *place_in_report: str) -> None:
        """Let the report see an artefact in a place: ``models``, ``mae``."""
        self.gathered["__".join(part for part in place_in_report if part)] = (kind, made)


def reads_with_clip(probe_values: Params) -> bool:
    """Tell whether a probe reads sentences with CLIP, which only the image of the teachers has."""
    return (probe_values.get("grounding") or {}).get("text") == "clip"


def argument(stage: str, entry: str = "") -> str:
    """Return the pipeline's argument that holds the parameters of a step."""
    return f"{stage}_{entry}" if entry else stage


def image_of(component: BaseComponent, cluster: Cluster, tag: str) -> str:
    """Return a component's image with the cluster's registry and another tag."""
    name, _, _ = component.component_spec.implementation.container.image.rpartition(":")
    registry = cluster.images.registry.rstrip("/")
    return f"{registry}/{name}:{tag}" if registry else f"{name}:{tag}"


def default_arguments(params: Params, cluster: Cluster) -> dict[str, str]:
    """Return the pipeline's arguments: where raw shapes and resume state are, and the values of every step as JSON.

    Note:
        As text, because the SDK refuses nulls in a dict and makes every integer a float.

    Raises:
        ParamsError: An entry's name cannot be part of a name in KFP.
    """
    mount = cluster.storage.mount if cluster.storage else "/tmp"
    found = {"source": f"{mount}/raw", "state": f"{mount}/state"}
    for stage in STAGES:
        entries = params[stage] if stage in ENTRY_STAGES else {"": params[stage]}
        for entry, values in entries.items():
            if entry and not ENTRY.fullmatch(entry):
                raise ParamsError(
                    f"section '{stage}.{entry}': on a cluster, names consist of letters, digits and single underscores"
                )
            found[argument(stage, entry)] = json.dumps(values)
    return found


def build_pipeline(name: str, params: Params, cluster: Cluster, *, tag: str = __version__) -> BaseComponent:
    """Return the pipeline ``pointloom-NAME``.

    Args:
        name: One of ``PIPELINES``.
        params: All sections, validated; an empty one leaves its stage out.
        cluster: Where steps run.
        tag: Tag of the images. Caches are keyed by it, so it must change when the code does.
    """
    defaults = default_arguments(params, cluster)

    def graph(*given: Any) -> None:
        steps = Steps(cluster, tag, dict(zip(defaults, given, strict=True)), params)
        if cluster.webhook is None:
            _connect(steps, params)
            return
        end = notify()
        place(end, "notify", cluster, image=image_of(notify, cluster, tag), cached=False)
        kubernetes.use_secret_as_env(end, cluster.webhook.secret, {cluster.webhook.key: "POINTLOOM_WEBHOOK"})
        with dsl.ExitHandler(end, name="stages"):
            _connect(steps, params)

    return with_arguments(graph, f"pointloom-{name}", DESCRIPTIONS[name], defaults)


def with_arguments(graph: Any, name: str, description: str, defaults: Mapping[str, str]) -> BaseComponent:
    """Return a function of positional arguments as a pipeline whose arguments have these names and defaults."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    graph.__signature__ = inspect.Signature(
        [inspect.Parameter(key, kind, default=value, annotation=str) for key, value in defaults.items()]
    )
    return dsl.pipeline(name=name, description=description)(graph)


def _connect(steps: Steps, params: Params) -> None:
    """Add all steps, in the order of ``dvc.yaml``."""
    source = steps.arguments["source"]
    data = steps.add(prepare, "prepare", source=source)["dataset"]
    views, captions, features, encoders = {}, {}, {}, {}
    for entry in params["render"]:
        views[entry] = steps.add(render, "render", entry, source=source, dataset=data)["views"]
        steps.keep(Dataset, views[entry], "data", "views", entry)
    for entry, values in params["caption"].items():
        captions[entry] = steps.add(caption, "caption", entry, dataset=data, views=views[values["views"]])["captions"]
        steps.keep(Dataset, captions[entry], "data", "captions", entry)
    for entry, values in params["embed"].items():
        seen, said = views[values["views"]], captions[values["captions"]]
        features[entry] = steps.add(embed, "embed", entry, dataset=data, views=seen, captions=said)["features"]
        steps.keep(Dataset, features[entry], "data", "features", entry)
    for entry in params["pretrain"]:
        encoders[entry] = steps.add(pretrain, "pretrain", entry, dataset=data)["encoder"]
    for entry, values in params["align"].items():
        made = steps.add(align, "align", entry, dataset=data, features=features[values["features"]])
        encoders[entry] = made["encoder"]
        steps.keep(Artifact, made["result"], "results", "align", entry)
    for entry, values in params["distill"].items():
        teacher = encoders[values["teacher"]]
        encoders[entry] = steps.add(distill, "distill", entry, dataset=data, teacher=teacher)["encoder"]
    for entry, encoder in encoders.items():
        steps.keep(Model, encoder, "models", entry)
    for stage, component in (("finetune", finetune), ("probe", probe)):
        for entry, values in params[stage].items():
            made = steps.add(component, stage, entry, dataset=data, encoder=encoders[values["encoder"]])
            steps.keep(Artifact, made["result"], "results", stage, entry)
    gathered = dict(steps.gathered)
    report = report_of({name: kind for name, (kind, _) in gathered.items()})
    steps.add(report, "report", dataset=data, **{name: made for name, (_, made) in gathered.items()})
