"""Task ``few_shot``: classification with a few objects of a few classes, over folds."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pointloom.stages.enough_points import check_enough_points
from pointloom.stages.finetune_tasks.base import (
    Places,
    kept_outcome,
    result_folder,
    run_all,
    tuned_encoder,
    write_curves,
)
from pointloom.stages.finetune_tasks.classification import ClassifierParams, class_scores, train_and_predict
from pointloom.stages.training import as_sampling, result_header, summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.data.objects import CloudSource
    from pointloom.stages.finetune_tasks.base import Arrays
    from pointloom.stages.runs import StageRun
    from pointloom.train.parallel import Advance


class FewShotParams(ClassifierParams):
    """Few-shot classification with trained weights: a run per fold, mean and deviation over folds."""

    task: Literal["few_shot"]
    way: int = Field(ge=2, description="classes per fold")
    shot: int = Field(ge=1, description="training objects per class")
    query: int = Field(ge=1, description="test objects per class; 20 in the community's folds")
    folds: list[int] = Field(min_length=1, description="numbers of the folds; 0 to 9 in the papers")
    folder: str | None = Field(
        description="ModelNetFewshot, the community's folds; null draws seeded folds from the prepared store"
    )
    num_outputs: int = Field(ge=2, description="width of the head where folds come from a folder; 40 in the papers")
    epochs: int = Field(ge=1)


@dataclass(frozen=True)
class FewShotJob:
    """One fold: everything a worker process needs.

    Attributes:
        fold: Its number, which is also the seed of head and order of data.
        state: Folder for resume state and, when done, the outcome.
    """

    params: FewShotParams
    dataset: Path
    encoder: Path
    fold: int
    state: Path


@dataclass(frozen=True)
class OpenFold:
    """A fold that is ready to be read.

    Attributes:
        clouds: Where its objects are.
        train: Rows to learn from.
        test: Rows to classify.
        num_classes: Width of the head.
    """

    clouds: "CloudSource"
    train: "NDArray[np.int64]"
    test: "NDArray[np.int64]"
    num_classes: int


def run_few_shot(params: FewShotParams, places: Places, run: "StageRun") -> None:
    """Train and test every fold.

    Raises:
        DataError: The store has too few objects per class, or a fold is missing or damaged.
        ParamsError: The head is narrower than the folds have classes, or the encoder has more patches than clouds have
            points.
    """
    from pointloom.data.shards import ObjectStore
    from pointloom.errors import ParamsError
    from pointloom.stages.runs import write_json
    from pointloom.train.checkpoint import read_card

    store, card = ObjectStore(places.dataset), read_card(places.encoder)
    if params.folder is not None and params.num_outputs < params.way:
        raise ParamsError(f"finetune: num_outputs {params.num_outputs} is less than the {params.way} classes of a fold")
    encoder = tuned_encoder(places.encoder, params.encoder_args)
    check_enough_points(encoder, params.sampling.num_points, where="finetune")
    sources = [_source(params, store.info.digest, places.dataset, fold) for fold in params.folds]
    header = result_header("finetune", places.result.name, card=card, store=store, protocol=_protocol(params))
    shaped_by = {"params": params.model_dump(mode="json"), "data": sources, "encoder": card.weights_sha256}
    with result_folder(places, shaped_by=shaped_by) as (folder, resume):
        jobs = [
            FewShotJob(params, places.dataset, places.encoder, fold, resume / f"fold{fold}") for fold in params.folds
        ]
        num_train = params.way * params.shot
        steps = [params.epochs * (num_train // min(params.batch_size, num_train))] * len(jobs)
        outcomes = run_all(run_few_shot_job, jobs, steps=steps, label=f"finetune {places.encoder.name}")
        runs = [outcome["run"] for outcome in outcomes]
        write_json(folder / "result.json", header | {"task": "few_shot", "runs": runs})
        write_curves(folder / "curves.csv", outcomes, keys=("fold",))
    run.summary(summarise(runs, ("oa", "oa_vote")))


def _source(params: FewShotParams, digest: str, dataset: Path, fold: int) -> str:
    """Return what identifies the data of a fold; find what cannot work before any training starts."""
    from pointloom.data.fold_clouds import check_fold
    from pointloom.data.folds import load_fold
    from pointloom.train.checkpoint import file_sha256

    if params.folder is None:
        _open_seeded(params, dataset, fold)
        return digest
    path = _fold_file(params, fold)
    check_fold(load_fold(path), path=path, num_points=params.sampling.pool, way=params.way)
    return file_sha256(path)


def _protocol(params: FewShotParams) -> dict[str, Any]:
    return {
        "selection": params.selection,
        "epochs": params.epochs,
        "way": params.way,
        "shot": params.shot,
        "query": params.query,
        "folds": "the community's" if params.folder else "seeded, of our own",
        "votes": params.votes,
        "num_points": params.sampling.num_points,
        "head": params.head,
        "seed_covers": "the fold: classes, objects, head, order of data; all weights where the encoder is untrained",
    }


def _fold_file(params: FewShotParams, fold: int) -> Path:
    from pointloom.datasets.modelnet_fewshot import fold_path

    return fold_path(Path(params.folder or ""), way=params.way, shot=params.shot, fold=fold)


def _open_seeded(params: FewShotParams, dataset: Path, fold: int) -> OpenFold:
    from pointloom.data.shards import ObjectStore
    from pointloom.errors import DataError
    from pointloom.tasks.few_shot import draw_fold

    store = ObjectStore(dataset)
    try:
        train, test = draw_fold(
            store.rows("train"), store.rows("test"), store.labels, way=params.way, shot=params.shot,
            query=params.query, fold=fold,
        )  # fmt: skip
    except ValueError as error:
        raise DataError(f"{dataset}: {error}") from error
    return OpenFold(clouds=store, train=train, test=test, num_classes=len(store.info.classes))


def _open(job: FewShotJob) -> OpenFold:
    from pointloom.data.fold_clouds import FoldClouds
    from pointloom.data.folds import load_fold

    params = job.params
    if params.folder is None:
        return _open_seeded(params, job.dataset, job.fold)
    path = _fold_file(params, job.fold)
    clouds = FoldClouds(load_fold(path), path=path, num_points=params.sampling.pool, way=params.way)
    return OpenFold(clouds, clouds.rows("train"), clouds.rows("test"), num_classes=params.num_outputs)


def run_few_shot_job(job: FewShotJob, advance: "Advance") -> dict[str, Any]:
    """Train and test one fold; an outcome that is already on disk is returned as it is."""
    return kept_outcome(job.state, partial(_train_and_test, job, advance))


def _train_and_test(job: FewShotJob, advance: "Advance") -> "tuple[dict[str, Any], Arrays]":
    from pointloom.data.objects import ObjectLoader

    params, fold = job.params, _open(job)
    make_loader = partial(
        ObjectLoader, fold.clouds, sampling=as_sampling(params.sampling), batch_size=params.batch_size
    )
    test = make_loader(fold.test, seed=0)
    started = time.perf_counter()
    curve, found = train_and_predict(
        params, job.encoder, train=make_loader(fold.train, seed=job.fold), test=test, num_classes=fold.num_classes,
        epochs=params.epochs, seed=job.fold, state=job.state, advance=advance,
    )  # fmt: skip
    scores, arrays = class_scores(found, fold.clouds.labels[test.rows])
    record = {
        "fold": job.fold, "seed": job.fold, "num_train": len(fold.train), "num_test": len(fold.test),
        "epochs": params.epochs, **scores, "loss": curve[-1]["loss"], "cpu_s": curve[-1]["cpu_s"],
        "wall_s": time.perf_counter() - started,
    }  # fmt: skip
    return {"run": record, "curve": curve}, arrays
