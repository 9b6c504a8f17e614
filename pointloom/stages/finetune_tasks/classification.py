"""Task ``classification``: objects by class, over seeds and shares of the labels."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.finetune_tasks.base import (
    BestEpoch,
    Places,
    TuningParams,
    kept_outcome,
    result_folder,
    run_all,
    tuned_encoder,
    write_curves,
)
from pointloom.stages.params import SamplingParams, StageParams
from pointloom.stages.training import as_optimization, as_sampling, can_classify, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pointloom.data.objects import ObjectLoader
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.structures import PointBatch
    from pointloom.tasks.classification import Classifier
    from pointloom.train.parallel import Advance

ADDITIONS = ("task", "transfer", "voting")
"""Parameters that came later; sections without them keep their digest."""


class TransferParams(StageParams):
    """What the papers' transfer protocols do beyond the head."""

    freeze: Literal["none", "encoder", "official"] = Field(
        description="encoder: it is frozen as a whole; official: class token, batch statistics and drop-path stay alive"
    )
    head_lr_factor: float = Field(ge=1, description="peak rate of head and class token over that of all other weights")


class VotingParams(StageParams):
    """Voting as the official code does it: passes of draws whose logits are averaged."""

    draws: int = Field(ge=1, description="augmented random draws of the pool per pass")
    passes: int = Field(ge=1, description="passes; the code reports their maximum, the result has their mean as well")


class ClassifierParams(TuningParams):
    """What classification and few-shot classification share."""

    head: Literal["linear", "mlp3", "mlp_linear"] = Field(
        description="linear: LayerNorm, dropout, linear; mlp3: the papers' head; mlp_linear: the papers' single layer"
    )
    label_smoothing: float = Field(ge=0, lt=1)
    votes: int = Field(
        ge=1,
        description="random draws of the test points; single = their mean accuracy, vote = average; "
        "1: the farthest points, as papers test",
    )
    sampling: SamplingParams
    transfer: TransferParams | None = Field(default=None, description="null trains everything at one rate")
    voting: VotingParams | None = Field(default=None, description="null leaves the official voting out")


class ClassificationParams(ClassifierParams):
    """Classification with all weights trained, or with a frozen encoder."""

    task: Literal["classification"] = "classification"
    seeds: list[int] = Field(min_length=1, description="one run per seed: head, order of data, label subset")
    label_epochs: dict[float, int] = Field(
        min_length=1, description="share of the training labels -> epochs; 1.0 is the full training split"
    )

    @model_serializer(mode="wrap")
    def _without_unused_additions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {k: v for k, v in values.items() if k not in ADDITIONS or (k != "task" and v is not None)}


@dataclass(frozen=True)
class ClassificationJob:
    """One run: everything a worker process needs.

    Attributes:
        fraction: Share of the training labels.
        seed: Seed of head, data order and label subset; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: ClassificationParams
    dataset: Path
    encoder: Path
    fraction: float
    seed: int
    state: Path


def run_classification(params: ClassificationParams, places: Places, run: "StageRun") -> None:
    """Train and test every share of the labels with every seed.

    Raises:
        ParamsError: The encoder has more patches than clouds have points.
    """
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = ObjectStore(places.dataset), read_card(places.encoder)
    encoder = tuned_encoder(places.encoder, params.encoder_args)
    check_enough_points(encoder, params.sampling.num_points, where="finetune")
    header = result_header("finetune", places.result.name, card=card, store=store, protocol=_protocol(params))
    shaped_by = {
        "params": params.model_dump(mode="json"),
        "data": store.info.digest,
        "encoder": card.weights_sha256,
    }
    with result_folder(places, shaped_by=shaped_by) as (folder, resume):
        outcomes = _run_all(params, places, store, resume) if can_classify(store, "fine-tuning") else []
        runs = [outcome["run"] for outcome in outcomes]
        write_json(folder / "result.json", header | {"runs": runs})
        if outcomes:
            _write_predictions(folder, store, outcomes)
            write_curves(folder / "curves.csv", outcomes, keys=("fraction", "seed"))
    if outcomes:
        full = [each for each in runs if each["fraction"] == max(params.label_epochs)]
        voted = ("oa_voting_mean", "oa_voting_max") if params.voting else ()
        run.summary(summarise(full, ("oa", "macc", "oa_vote", "macc_vote", *voted)))


def _protocol(params: ClassificationParams) -> dict[str, Any]:
    return {
        "selection": params.selection,
        "epochs": params.label_epochs[max(params.label_epochs)],
        "votes": params.votes,
        "num_points": params.sampling.num_points,
        "head": params.head,
        "seed_covers": "head, order of data, label subset; all weights where the encoder is untrained",
        **({"transfer": params.transfer.model_dump()} if params.transfer else {}),
        **({"voting": params.voting.model_dump()} if params.voting else {}),
    }


def _run_all(params: ClassificationParams, places: Places, store: "ObjectStore", resume: Path) -> list[dict[str, Any]]:
    """Run every (share, seed) and return the outcomes in order of share and seed."""
    jobs = [
        ClassificationJob(
            params, places.dataset, places.encoder, fraction, seed, resume / f"share{fraction:g}-seed{seed}"
        )
        for fraction in sorted(params.label_epochs, reverse=True)
        for seed in params.seeds
    ]
    steps = [_steps(job, store) for job in jobs]
    return run_all(run_classification_job, jobs, steps=steps, label=f"finetune {places.encoder.name}")


def _steps(job: ClassificationJob, store: "ObjectStore") -> int:
    rows = label_subset(store, fraction=job.fraction, seed=job.seed)
    return job.params.label_epochs[job.fraction] * (len(rows) // min(job.params.batch_size, len(rows)))


def label_subset(store: "ObjectStore", *, fraction: float, seed: int) -> "NDArray[np.int64]":
    """Choose a share of the labelled training objects, the same for every encoder; every class keeps at least one."""
    import numpy as np

    rows = store.rows("train")
    rows = rows[store.labels[rows] >= 0]
    if fraction >= 1.0:
        return rows
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(store.labels[rows]):
        members = rng.permutation(rows[store.labels[rows] == label])
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def run_classification_job(job: ClassificationJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: ClassificationJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    from pointloom.data.objects import ObjectLoader
    from pointloom.data.shards import ObjectStore

    params, store = job.params, ObjectStore(job.dataset)
    make_loader = partial(ObjectLoader, store, sampling=as_sampling(params.sampling), batch_size=params.batch_size)
    rows = label_subset(store, fraction=job.fraction, seed=job.seed)
    test_rows = store.rows("test")
    test = make_loader(test_rows[store.labels[test_rows] >= 0], seed=0)
    epochs = params.label_epochs[job.fraction]
    started = time.perf_counter()
    curve, found = train_and_predict(
        params, job.encoder, train=make_loader(rows, seed=job.seed), test=test, num_classes=len(store.info.classes),
        epochs=epochs, seed=job.seed, state=job.state, advance=advance,
    )  # fmt: skip
    scores, arrays = class_scores(found, store.labels[test.rows])
    record = {
        "fraction": job.fraction, "seed": job.seed, "num_train": len(rows), "epochs": epochs, **scores,
        "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"], "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    return {"run": record, "curve": curve}, arrays


def train_and_predict(
    params: ClassifierParams,
    encoder: Path,
    *,
    train: "ObjectLoader",
    test: "ObjectLoader",
    num_classes: int,
    epochs: int,
    seed: int,
    state: Path,
    advance: "Advance",
) -> "tuple[list[dict[str, float]], Arrays]":
    """Train a classifier; return the curve and what ``_predict`` finds with the weights that ``selection`` chooses."""
    import torch

    from pointloom.tasks.classification import Classifier
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    device, transfer, official = best_device(), params.transfer, params.selection == "official"
    torch.manual_seed(seed)
    classifier = Classifier(
        tuned_encoder(encoder, params.encoder_args),
        head=params.head,
        num_classes=num_classes,
        label_smoothing=params.label_smoothing,
        freeze=transfer.freeze if transfer else "none",
    )
    label = test.store.labels[test.rows]
    evaluate = partial(_predict, classifier, test, params, device)
    best = BestEpoch(
        state / "best.npz", evaluate, lambda found: float((found["probability"].argmax(-1) == label).mean())
    )
    factor = transfer.head_lr_factor if transfer else 1.0
    fast = classifier.fast_parameters if factor > 1 else ()
    curve = fit(
        classifier,
        train,
        optimization=as_optimization(params.optim, epochs=epochs, fast=fast, fast_factor=factor),
        device=device,
        seed=seed,
        state=state,
        on_epoch=best.look if official else lambda _: None,
        on_step=advance,
    )
    return curve, best.read() if official else evaluate()


def class_scores(found: "Arrays", label: "NDArray[np.int64]") -> "tuple[dict[str, float], Arrays]":
    """Return accuracies and, per test object, what was predicted."""
    import numpy as np

    from pointloom.tasks.classification import accuracy

    probability = found["probability"]
    single, vote = probability.argmax(-1), probability.mean(0).argmax(-1)
    correct = (single == label).mean(0)
    share, voted = accuracy(correct, label), accuracy((vote == label).astype(np.float64), label)
    scores = {"oa": share.oa, "macc": share.macc, "oa_vote": voted.oa, "macc_vote": voted.macc}
    if "voted" in found:
        passes = 100.0 * (found["voted"] == label).mean(1)
        scores |= {
            "oa_voting_mean": float(passes.mean()),
            "oa_voting_std": float(passes.std(ddof=1)) if len(passes) > 1 else 0.0,
            "oa_voting_max": float(passes.max()),
        }
    return scores, {
        "prediction": single[0].astype(np.int16),
        "prediction_vote": vote.astype(np.int16),
        "correct": correct.astype(np.float32),
    }


def _predict(
    classifier: "Classifier", test: "ObjectLoader", params: ClassifierParams, device: "torch.device"
) -> "Arrays":
    """Return probabilities (votes, t, classes) for draws of the test points, and what the passes voted for."""
    import numpy as np

    from pointloom.tasks.classification import predict_draws, vote_passes

    precision = params.optim.precision
    draws = draws_of_test(test, votes=params.votes)
    found = {"probability": predict_draws(classifier, draws, device=device, precision=precision).numpy()}
    if params.voting is None:
        return found
    passes = [
        [test.draw_augmented(number * params.voting.draws + draw) for draw in range(params.voting.draws)]
        for number in range(params.voting.passes)
    ]
    voted = vote_passes(classifier, passes, device=device, precision=precision)
    return found | {"voted": voted.numpy().astype(np.int16)}


def draws_of_test(test: "ObjectLoader", *, votes: int) -> "list[Iterator[PointBatch]]":
    """Return the test clouds for every vote: random draws of their points, or the farthest ones for a single vote."""
    return [test.draw(1 + vote) for vote in range(votes)] if votes > 1 else [test.draw(0)]


def _write_predictions(folder: Path, store: "ObjectStore", outcomes: list[dict[str, Any]]) -> None:
    import numpy as np

    rows = store.rows("test")
    rows = rows[store.labels[rows] >= 0]
    runs = [each["run"] for each in outcomes]
    arrays: dict[str, Any] = {
        key: np.stack([each[key] for each in outcomes]) for key in ("prediction", "prediction_vote", "correct")
    }
    np.savez_compressed(
        folder / "predictions.npz",
        uid=store.uids[rows],
        label=store.labels[rows],
        fraction=np.array([run["fraction"] for run in runs]),
        seed=np.array([run["seed"] for run in runs]),
        **arrays,
    )
