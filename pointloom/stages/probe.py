"""Stage ``probe``: how much the frozen features of an encoder tell."""

import logging
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelIn, ResultOut, StateDir
from pointloom.stages.finetune_tasks.base import kept_outcome
from pointloom.stages.frozen_features import frozen_features, labelled_split
from pointloom.stages.params import GrowingParams, HeadParams, SamplingParams, StageParams
from pointloom.stages.probe_scenes import SceneProbeParams, run_scene_probe
from pointloom.stages.probe_text import NamingTest, TextProbeParams
from pointloom.stages.training import as_sampling, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import StageRun
    from pointloom.structures import Encoder
    from pointloom.tasks.probing import Split

logger = logging.getLogger(__name__)

FEATURES = "features.npz"
NUM_POINT_SAMPLES = 6


class SvmParams(GrowingParams):
    """Linear SVM on frozen features."""

    protocol: Literal["ours", "official"] = Field(
        default="ours",
        description="ours: standardised features; official: one C on features as they are (Point-M2AE's code)",
    )

    C: list[float] = Field(
        min_length=1, description="values to choose from by group-wise cross-validation; one value is used as it is"
    )
    folds: int = Field(ge=2, description="validation folds, cut by group inside the training split")

    @model_validator(mode="after")
    def _official_has_one_value(self) -> "SvmParams":
        if self.protocol == "official" and len(self.C) != 1:
            raise ValueError(f"the official protocol has one fixed C, got {self.C}")
        return self


class FewShotParams(StageParams):
    """Episodes of a few objects of a few classes; a linear SVM learns from each."""

    way: int = Field(ge=2, description="classes per episode")
    shot: int = Field(ge=1, description="training objects per class")
    query: int = Field(ge=1, description="test objects per class")
    episodes: int = Field(ge=1, description="episodes per seed")
    C: float = Field(gt=0, description="fixed C of the SVM")


class ObjectProbeParams(GrowingParams):
    """Classification on frozen features."""

    task: Literal["classification"] = "classification"
    encoder: str = Field(description="entry of params.yaml:pretrain to probe")
    seeds: list[int] = Field(
        min_length=1, description="point draws, folds, heads, episodes; all weights where the encoder is untrained"
    )
    draws: int = Field(ge=1, description="random draws of the points whose features are averaged")
    precision: Literal["bf16", "fp32"] = Field(description="bf16: matrix products in bfloat16")
    sampling: SamplingParams
    svm: SvmParams | None = Field(description="null leaves the protocol out")
    linear: HeadParams | None = Field(description="null leaves the protocol out")
    mlp3: HeadParams | None = Field(description="null leaves the protocol out")
    few_shot: FewShotParams | None = Field(description="null leaves the protocol out")
    text: TextProbeParams | None = Field(
        default=None, description="name the test objects by text, with an encoder of stage align; null: do not"
    )


ProbeParams = Annotated[ObjectProbeParams | SceneProbeParams, Field(discriminator="task")]
"""What an entry of ``params.yaml:probe`` may be; ``task`` says which, classification where it is left out."""


def probe(
    params: ProbeParams,
    *,
    dataset: DatasetIn,
    encoder: ModelIn,
    result: ResultOut,
    metrics: MetricsOut,
    state: StateDir,
) -> None:
    """Classify objects, or the points of scenes, by the frozen features of an encoder."""
    from pointloom.stages.runs import stage_run

    inputs = {"dataset": dataset, "encoder": encoder}
    with stage_run("probe", name=result.name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        if isinstance(params, SceneProbeParams):
            run_scene_probe(params, dataset=dataset, encoder=encoder, result=result, run=run)
        else:
            _probe_objects(params, dataset=dataset, encoder=encoder, result=result, state=state, run=run)
        run.log_artifact(result, folder="result")


def _probe_objects(
    params: ObjectProbeParams, *, dataset: Path, encoder: Path, result: Path, state: Path, run: "StageRun"
) -> None:
    """Classify objects, and keep the features for pictures and retrieval; seeds that are finished survive a kill."""
    from pointloom.data.replace import replaced_folder
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card
    from pointloom.train.state import resume_state

    store, card = ObjectStore(dataset), read_card(encoder)
    header = result_header("probe", result.name, card=card, store=store, protocol=_protocol(params, store))
    naming = NamingTest(encoder, store, params.text) if params.text else None
    shaped_by = {
        "params": params.model_dump(mode="json"), "data": store.info.digest, "encoder": card.weights_sha256
    }  # fmt: skip
    found: list[tuple[dict[str, Any], NDArray[np.int64] | None]] = []
    with replaced_folder(result) as folder, resume_state(state, stage="probe", shaped_by=shaped_by) as resume:
        for seed in params.seeds:
            work = partial(_probe_seed, params, seed, store=store, encoder=encoder, naming=naming, kept=resume)
            outcome = kept_outcome(resume / f"seed{seed}", work)
            found += [(record, outcome.get(str(i))) for i, record in enumerate(outcome["records"])]
        shutil.copyfile(resume / FEATURES, folder / FEATURES)
        runs = [record for record, _ in found]
        write_json(folder / "result.json", header | {"runs": runs})
        _write_predictions(folder, store, found)
    for protocol in dict.fromkeys(record["protocol"] for record in runs):
        chosen = [record for record in runs if record["protocol"] == protocol]
        run.summary(summarise(chosen, ("oa",), prefix=f"{protocol}/"))


def _probe_seed(
    params: ObjectProbeParams,
    seed: int,
    *,
    store: "ObjectStore",
    encoder: Path,
    naming: NamingTest | None,
    kept: Path,
) -> "tuple[dict[str, Any], dict[str, NDArray[np.generic]]]":
    """Return the records of every protocol for one seed, and predictions by place; the first keeps its features."""
    module = _build(encoder, seed)
    feature = frozen_features(
        module, store, sampling=params.sampling, draws=params.draws, precision=params.precision, seed=seed,
        label=f"features, seed {seed}",
    )  # fmt: skip
    if seed == params.seeds[0]:
        _write_features(kept / FEATURES, module, store, feature, params)
    split = labelled_split(store, feature)
    found = [] if split is None else _run_protocols(params, split, seed, len(store.info.classes))
    if naming is not None:
        found += naming.run(feature, seed)
    predictions: dict[str, NDArray[np.generic]] = {
        str(i): prediction for i, (_, prediction) in enumerate(found) if prediction is not None
    }
    return {"records": [record for record, _ in found]}, predictions


def _protocol(params: ObjectProbeParams, store: "ObjectStore") -> dict[str, Any]:
    few_shot = _few_shot(params.few_shot, store) if params.few_shot else None
    return {
        "selection": "last",
        "num_points": params.sampling.num_points,
        "draws": params.draws,
        "svm": params.svm.model_dump() if params.svm else None,
        "few_shot": few_shot,
        **({"text": params.text.model_dump()} if params.text else {}),
        "seed_covers": "point draws, folds, heads, episodes; all weights where the encoder is untrained",
    }


def _few_shot(params: FewShotParams, store: "ObjectStore") -> dict[str, Any]:
    """Return the parameters with how many classes have enough objects, and warn where there are too few of those."""
    from pointloom.tasks.probing import few_shot_classes

    train, test = (store.labels[store.rows(split)] for split in ("train", "test"))
    eligible = len(few_shot_classes(train, test, shot=params.shot, query=params.query))
    if (train >= 0).any() and eligible < params.way:
        logger.warning(
            "few-shot is left out: %d classes have %d training and %d test objects, %d are needed; lower way, shot or "
            "query, or set few_shot to null",
            eligible, params.shot, params.query, params.way,
        )  # fmt: skip
    return params.model_dump() | {"eligible_classes": eligible}


def _build(folder: Path, seed: int) -> "Encoder":
    """Load an encoder, or draw an untrained one anew with the run's seed."""
    import torch

    from pointloom.models import build_encoder
    from pointloom.train.checkpoint import load_encoder_module, read_card

    card = read_card(folder)
    torch.manual_seed(seed)
    untrained = card.method == "untrained"
    return build_encoder(card.builder, **card.builder_args) if untrained else load_encoder_module(folder)[0]


def _run_protocols(
    params: ObjectProbeParams, split: "Split", seed: int, num_classes: int
) -> "list[tuple[dict[str, Any], NDArray[np.int64] | None]]":
    """Return a record per protocol, with the test predictions where every test object has one."""
    import numpy as np
    from tqdm import tqdm

    from pointloom.data.workers import available_cores
    from pointloom.tasks.classification import accuracy
    from pointloom.tasks.probing import few_shot_accuracy, linear_svm, official_svm, trained_head

    found: list[tuple[dict[str, Any], NDArray[np.int64] | None]] = []
    few = params.few_shot
    total = sum(protocol is not None for protocol in (params.svm, params.linear, params.mlp3))
    bar = tqdm(total=total + (few.episodes if few else 0), desc=f"probes, seed {seed}", unit="probe")

    def add(protocol: str, prediction: "NDArray[np.int64]", started: float, **more: float) -> None:
        score = accuracy((prediction == split.test_label).astype(np.float64), split.test_label)
        spent = {"wall_s": time.perf_counter() - started}
        found.append(
            ({"protocol": protocol, "seed": seed, "oa": score.oa, "macc": score.macc, **more, **spent}, prediction)
        )
        bar.update()

    if params.svm:
        started = time.perf_counter()
        if params.svm.protocol == "official":
            chosen = params.svm.C[0]
            prediction = official_svm(split, C=chosen)
        else:
            prediction, chosen = linear_svm(
                split, grid=params.svm.C, folds=params.svm.folds, seed=seed, num_workers=available_cores()
            )
        add("svm", prediction, started, C=chosen)
    for head, options in (("linear", params.linear), ("mlp3", params.mlp3)):
        if options:
            started = time.perf_counter()
            prediction = trained_head(
                split, head=head, num_classes=num_classes, epochs=options.epochs, lr=options.lr, seed=seed
            )
            add(head, prediction, started)
    if few:
        for episode in range(few.episodes):
            number = seed * few.episodes + episode
            oa = few_shot_accuracy(split, way=few.way, shot=few.shot, query=few.query, C=few.C, seed=number)
            if oa is None:
                break
            found.append(({"protocol": f"few_shot_{few.way}w{few.shot}s", "seed": number, "oa": oa}, None))
            bar.update()
    bar.close()
    return found


def _write_predictions(
    folder: Path, store: "ObjectStore", found: "list[tuple[dict[str, Any], NDArray[np.int64] | None]]"
) -> None:
    """Keep the predictions of all runs that name every labelled test object."""
    import numpy as np

    rows = store.rows("test")
    rows = rows[store.labels[rows] >= 0]
    whole = [(record, prediction) for record, prediction in found if prediction is not None]
    if not whole:
        return
    np.savez_compressed(
        folder / "predictions.npz",
        uid=store.uids[rows],
        label=store.labels[rows],
        prediction=np.stack([prediction for _, prediction in whole]).astype(np.int16),
        protocol=np.array([record["protocol"] for record, _ in whole]),
        seed=np.array([record["seed"] for record, _ in whole]),
    )


def _write_features(
    path: Path, module: "Encoder", store: "ObjectStore", feature: "NDArray[np.float32]", params: ObjectProbeParams
) -> None:
    """Keep all global features, and per-point features of a few objects."""
    import numpy as np
    import torch

    from pointloom.data.objects import ObjectLoader
    from pointloom.ops import interpolate_features
    from pointloom.train.device import best_device

    device = best_device()
    rows = store.rows("test") if len(store.rows("test")) else store.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_POINT_SAMPLES, len(rows))).astype(np.int64)]
    loader = ObjectLoader(store, rows, sampling=as_sampling(params.sampling), batch_size=len(rows), seed=0)
    (batch,) = loader.draw(0)
    coord = batch.coord.to(device)
    with torch.inference_mode():
        level = module(module.group(coord))[-1]
        spread = interpolate_features(coord, level.centers, level.tokens.float())
    np.savez_compressed(
        path,
        uid=store.uids,
        split=store.splits,
        label=store.labels,
        feature=feature,
        point_uid=store.uids[rows],
        point_coord=batch.coord.numpy(),
        point_feature=spread.cpu().numpy().astype(np.float16),
    )
