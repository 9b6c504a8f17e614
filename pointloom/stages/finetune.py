"""Stage ``finetune``: train an encoder with a classification head, over seeds and shares of the labels."""

import csv
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.artifacts import DatasetIn, MetricsOut, ModelIn, ResultOut, StateDir
from pointloom.stages.params import OptimParams, SamplingParams, StageParams
from pointloom.stages.training import as_optimization, as_sampling, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from pointloom.data.objects import ObjectLoader
    from pointloom.data.shards import ObjectStore
    from pointloom.tasks.classification import Classifier
    from pointloom.train.parallel import Advance


class FinetuneParams(StageParams):
    """Classification with all weights trained."""

    encoder: str = Field(description="entry of params.yaml:pretrain to start from")
    encoder_args: dict[str, bool | int | float] = Field(description="builder arguments to change, e.g. class_token")
    head: Literal["linear", "mlp3"] = Field(description="linear: LayerNorm, dropout, linear; mlp3: the papers' head")
    seeds: list[int] = Field(min_length=1, description="one run per seed: head, order of data, label subset")
    label_epochs: dict[float, int] = Field(
        min_length=1, description="share of the training labels -> epochs; 1.0 is the full training split"
    )
    batch_size: int = Field(ge=2)
    label_smoothing: float = Field(ge=0, lt=1)
    votes: int = Field(
        ge=1, description="random draws of the test points; single = their mean accuracy, vote = average"
    )
    selection: Literal["last", "official"] = Field(
        description="last: weights of the last epoch; official: best epoch on the test split, the field's habit"
    )
    sampling: SamplingParams
    optim: OptimParams


@dataclass(frozen=True)
class FinetuneJob:
    """One run: everything a worker process needs.

    Attributes:
        fraction: Share of the training labels.
        seed: Seed of head, data order and label subset; of all weights where the encoder is untrained.
        state: Folder for resume state and, when done, the outcome.
    """

    params: FinetuneParams
    dataset: Path
    encoder: Path
    fraction: float
    seed: int
    state: Path


def finetune(
    params: FinetuneParams,
    *,
    dataset: DatasetIn,
    encoder: ModelIn,
    result: ResultOut,
    metrics: MetricsOut,
    state: StateDir,
) -> None:
    """Train an encoder end to end to classify objects and test it on objects it has never seen."""
    from pointloom.data.replace import replaced_folder
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import stage_run, write_json
    from pointloom.train.checkpoint import read_card
    from pointloom.train.state import resume_state

    inputs = {"dataset": dataset, "encoder": encoder}
    with stage_run("finetune", name=result.name, params=params, inputs=inputs, metrics=metrics, state=state) as run:
        store, card = ObjectStore(dataset), read_card(encoder)
        header = result_header("finetune", result.name, card=card, store=store, protocol=_protocol(params))
        shaped_by = {
            "params": params.model_dump(mode="json"),
            "data": store.info.digest,
            "encoder": card.weights_sha256,
        }
        with replaced_folder(result) as folder, resume_state(state, stage="finetune", shaped_by=shaped_by) as resume:
            outcomes = _run_all(params, dataset, encoder, store, resume) if _has_labels(store) else []
            runs = [outcome["run"] for outcome in outcomes]
            write_json(folder / "result.json", header | {"runs": runs})
            if outcomes:
                _write_predictions(folder, store, outcomes)
                _write_curves(folder / "curves.csv", outcomes)
        if outcomes:
            full = [each for each in runs if each["fraction"] == max(params.label_epochs)]
            run.summary(summarise(full, ("oa", "macc", "oa_vote", "macc_vote")))
        run.log_artifact(result, folder="result")


def _protocol(params: FinetuneParams) -> dict[str, Any]:
    return {
        "selection": params.selection,
        "epochs": params.label_epochs[max(params.label_epochs)],
        "votes": params.votes,
        "num_points": params.sampling.num_points,
        "head": params.head,
        "seed_covers": "head, order of data, label subset; all weights where the encoder is untrained",
    }


def _has_labels(store: "ObjectStore") -> bool:
    return len(store.info.classes) > 1 and all((store.labels[store.rows(s)] >= 0).any() for s in ("train", "test"))


def _run_all(
    params: FinetuneParams, dataset: Path, encoder: Path, store: "ObjectStore", resume: Path
) -> list[dict[str, Any]]:
    """Run every (share, seed), the longest first, and return the outcomes in order of share and seed."""
    from pointloom.data.workers import available_cores
    from pointloom.train.device import best_device
    from pointloom.train.parallel import run_jobs

    jobs = [
        FinetuneJob(params, dataset, encoder, fraction, seed, resume / f"share{fraction:g}-seed{seed}")
        for fraction in sorted(params.label_epochs, reverse=True)
        for seed in params.seeds
    ]
    steps = [_steps(job, store) for job in jobs]
    by_length = sorted(range(len(jobs)), key=lambda i: -steps[i])
    finished = run_jobs(
        run_finetune_job,
        [jobs[i] for i in by_length],
        device=best_device(),
        num_workers=available_cores(),
        total_steps=sum(steps),
        label=f"finetune {encoder.name}",
    )
    outcomes = {(job.fraction, job.seed): outcome for job, outcome in finished}
    return [outcomes[job.fraction, job.seed] for job in jobs]


def _steps(job: FinetuneJob, store: "ObjectStore") -> int:
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


def run_finetune_job(job: FinetuneJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one run; an outcome that is already on disk is returned as it is."""
    import numpy as np

    outcome_file, arrays_file = job.state / "outcome.json", job.state / "outcome.npz"
    if not outcome_file.exists():
        _train_and_test(job, advance)
    content: dict[str, Any] = json.loads(outcome_file.read_text(encoding="utf-8"))
    with np.load(arrays_file, allow_pickle=False) as arrays:
        return content | {key: arrays[key] for key in arrays.files}


def _train_and_test(job: FinetuneJob, advance: "Advance") -> None:
    import numpy as np
    import torch

    from pointloom.data.objects import ObjectLoader
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import write_json
    from pointloom.tasks.classification import accuracy
    from pointloom.train.device import best_device
    from pointloom.train.loop import fit

    params, device = job.params, best_device()
    job.state.mkdir(parents=True, exist_ok=True)
    store = ObjectStore(job.dataset)
    make_loader = partial(ObjectLoader, store, sampling=as_sampling(params.sampling), batch_size=params.batch_size)
    rows = label_subset(store, fraction=job.fraction, seed=job.seed)
    test_rows = store.rows("test")
    test = make_loader(test_rows[store.labels[test_rows] >= 0], seed=0)
    epochs = params.label_epochs[job.fraction]
    torch.manual_seed(job.seed)
    classifier = _build_classifier(job, num_classes=len(store.info.classes))
    started = time.perf_counter()
    predict = partial(_predict, classifier, test, params, device)
    keep_best = _BestEpoch(job.state / "best.npz", predict, store.labels[test.rows])
    curve = fit(
        classifier,
        make_loader(rows, seed=job.seed),
        optimization=as_optimization(params.optim, epochs=epochs),
        device=device,
        seed=job.seed,
        state=job.state,
        on_epoch=keep_best.look if params.selection == "official" else lambda _: None,
        on_step=advance,
    )
    probability = keep_best.read() if params.selection == "official" else predict()
    label = store.labels[test.rows]
    single, vote = probability.argmax(-1), probability.mean(0).argmax(-1)
    correct = (single == label).mean(0)
    share, voted = accuracy(correct, label), accuracy((vote == label).astype(np.float64), label)
    np.savez(
        job.state / "outcome.npz",
        prediction=single[0].astype(np.int16),
        prediction_vote=vote.astype(np.int16),
        correct=correct.astype(np.float32),
    )
    record = {
        "fraction": job.fraction, "seed": job.seed, "num_train": len(rows), "epochs": epochs,
        "oa": share.oa, "macc": share.macc, "oa_vote": voted.oa, "macc_vote": voted.macc,
        "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"], "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    write_json(job.state / "outcome.json", {"run": record, "curve": curve})


def _build_classifier(job: FinetuneJob, *, num_classes: int) -> "Classifier":
    """Build the network: pre-trained weights, or fresh ones drawn with the run's seed where the encoder has none."""
    from pointloom.models import build_encoder
    from pointloom.tasks.classification import Classifier
    from pointloom.train.checkpoint import load_encoder_module, read_card

    params, card = job.params, read_card(job.encoder)
    if card.method == "untrained":
        encoder = build_encoder(card.builder, **(card.builder_args | params.encoder_args))
    else:
        encoder, _ = load_encoder_module(
            job.encoder, allow_missing=("cls_token", "cls_position"), **params.encoder_args
        )
    return Classifier(encoder, head=params.head, num_classes=num_classes, label_smoothing=params.label_smoothing)


def _predict(
    classifier: "Classifier", test: "ObjectLoader", params: FinetuneParams, device: "torch.device"
) -> "NDArray[np.float32]":
    """Return probabilities (votes, t, classes) for random draws of the test points."""
    from pointloom.tasks.classification import predict_draws

    draws = [test.draw(1 + vote) for vote in range(params.votes)]
    return predict_draws(classifier, draws, device=device, precision=params.optim.precision).numpy()


class _BestEpoch:
    """Remember the predictions of the epoch that is best on the test split (``selection: official``)."""

    def __init__(self, path: Path, predict: Callable[[], "NDArray[np.float32]"], label: "NDArray[np.int64]") -> None:
        self.path, self.predict, self.label = path, predict, label

    def look(self, row: Mapping[str, float]) -> None:
        """Test after an epoch, unless an earlier attempt has."""
        import numpy as np

        seen, best = 0.0, -1.0
        if self.path.exists():
            with np.load(self.path) as kept:
                seen, best = float(kept["seen"]), float(kept["best"])
                probability = kept["probability"]
        if row["epoch"] <= seen:
            return
        new = self.predict()
        score = float((new.argmax(-1) == self.label).mean())
        if score > best:
            best, probability = score, new
        temporary = self.path.with_suffix(".tmp.npz")
        np.savez(temporary, seen=row["epoch"], best=best, probability=probability)
        temporary.replace(self.path)

    def read(self) -> "NDArray[np.float32]":
        """Return the kept predictions."""
        import numpy as np

        with np.load(self.path) as kept:
            probability: NDArray[np.float32] = kept["probability"]
        return probability


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


def _write_curves(path: Path, outcomes: list[dict[str, Any]]) -> None:
    columns = ("epoch", "loss", "lr", "train_oa")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fraction", "seed", *columns])
        for each in outcomes:
            key = (each["run"]["fraction"], each["run"]["seed"])
            writer.writerows([*key, *(row[column] for column in columns)] for row in each["curve"])
