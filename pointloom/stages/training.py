"""What the training stages share: from validated parameters to the objects of the lower floors."""

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pointloom.stages.params import OptimParams, SamplingParams
from pointloom.train.processes import is_leader, leave_to_leader

if TYPE_CHECKING:
    from torch import nn
    from tqdm import tqdm

    from pointloom.data.objects import Sampling
    from pointloom.data.shards import ObjectStore
    from pointloom.stages.runs import StageRun
    from pointloom.structures import PointBatch
    from pointloom.train.checkpoint import EncoderCard
    from pointloom.train.loop import Loader, Optimization

logger = logging.getLogger(__name__)

NUM_SAMPLES = 8


def as_sampling(params: SamplingParams) -> "Sampling":
    """Return the loader's description of sampling and augmentation."""
    from pointloom.data.objects import Sampling

    return Sampling(
        num_points=params.num_points,
        pool=params.pool,
        scale=(params.scale_min, params.scale_max),
        shift=params.shift,
        rotate_degrees=params.rotate_degrees,
    )


def as_optimization(
    params: OptimParams,
    *,
    epochs: int,
    beta2: float = 0.999,
    fast: tuple[str, ...] = (),
    fast_factor: float = 1.0,
    double_step: bool = False,
) -> "Optimization":
    """Return the loop's description of schedule and precision; a run shorter than the warm-up shortens it."""
    from pointloom.train.loop import Optimization

    return Optimization(
        epochs=epochs,
        lr=params.lr,
        min_lr=params.min_lr,
        weight_decay=params.weight_decay,
        warmup_epochs=min(params.warmup_epochs, 0.5 * epochs) if params.schedule == "step" else params.warmup_epochs,
        clip_norm=params.clip_norm,
        schedule=params.schedule,
        precision=params.precision,
        beta2=beta2,
        fast=fast,
        fast_factor=fast_factor,
        double_step=double_step,
        schedule_epochs=params.schedule_epochs,
    )


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill that takes the place of ``target`` when the block succeeds.

    Of several training processes only the leader writes there; the others get a folder that nobody keeps.
    """
    from pointloom.data.replace import replaced_folder

    with replaced_folder(target) if is_leader() else TemporaryDirectory(prefix="pointloom-") as folder:
        yield Path(folder)


@contextmanager
def trained(
    method: "nn.Module",
    loader: "Loader",
    *,
    stage: str,
    label: str,
    optimization: "Optimization",
    seed: int,
    shaped_by: Mapping[str, Any],
    state: Path,
    run: "StageRun",
    on_step: Callable[[], None] = lambda: None,
    prefix: str = "",
    on_epoch: Callable[[dict[str, float]], None] = lambda _: None,
    more_to_train: bool = False,
) -> "Iterator[list[dict[str, float]]]":
    """Pre-train with progress, tracking and resume; yield the curve to a block that writes everything down.

    The resume state is removed when the block succeeds. Started by torchrun, all processes train, and only the leader
    enters the block; the others end, unless there is more to train.

    Args:
        method: What to train, in place.
        loader: Source of batches.
        stage: Name of the stage, which keys the resume state.
        label: Text in front of the progress bar.
        optimization: Schedule and precision.
        seed: Of the model's random choices.
        shaped_by: Everything that shapes the result, as JSON values.
        state: Folder for all resume state.
        run: Where losses are logged.
        on_step: As in ``fit``.
        prefix: In front of the names of what is logged.
        on_epoch: Called with the row of every epoch, also of earlier attempts; what it adds to the row is kept.
        more_to_train: Whether the stage trains again, inside of the block or after it.
    """
    from tqdm import tqdm

    from pointloom.train.device import best_device
    from pointloom.train.loop import fit
    from pointloom.train.state import resume_state
    from pointloom.train.waiting import TimedLoader

    def log(row: dict[str, float]) -> None:
        on_epoch(row)
        _show_and_log(row | {"percent_waiting_for_data": timed.percent_waited}, bar, run, prefix=prefix)

    timed = TimedLoader(loader)
    with (
        resume_state(state, stage=stage, shaped_by=shaped_by) as resume,
        tqdm(total=optimization.epochs, desc=label, unit="epoch", disable=not is_leader()) as bar,
    ):
        curve = fit(
            method, timed, optimization=optimization, device=best_device(), seed=seed, state=resume,
            on_epoch=log, on_step=on_step,
        )  # fmt: skip
        run.summary({f"{prefix}percent_waiting_for_data": timed.percent_waited})
        if not more_to_train:
            leave_to_leader()
        yield curve


def _show_and_log(row: Mapping[str, float], bar: "tqdm[Any]", run: "StageRun", *, prefix: str) -> None:
    bar.update(int(row["epoch"]) - bar.n)
    bar.set_postfix(loss=f"{row['loss']:.5f}")
    values = {f"{prefix}{name}": value for name, value in row.items() if name not in {"epoch", "cpu_s"}}
    run.log_metrics(values, step=int(row["epoch"]))


def write_curve(path: Path, curve: "list[dict[str, float]]") -> None:
    """Write one line per epoch; what was not measured after an epoch is left blank."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(name for row in curve for name in row)))
        writer.writeheader()
        writer.writerows(curve)


def sample_batch(store: "ObjectStore", sampling: "Sampling") -> "PointBatch":
    """Return a few clouds that were not trained on (training objects where there are no others), to look at."""
    import numpy as np

    from pointloom.data.objects import ObjectLoader

    rows = store.rows("test") if len(store.rows("test")) else store.rows("train")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(np.int64)]
    (batch,) = ObjectLoader(store, rows, sampling=sampling, batch_size=len(rows), seed=0).draw(0)
    return batch


def can_classify(store: "ObjectStore", what: str) -> bool:
    """Tell whether there are two classes to learn and an object to test; where not, log that something is skipped."""
    train, test = (store.labels[store.rows(split)] for split in ("train", "test"))
    if len(set(train[train >= 0].tolist())) > 1 and (test >= 0).any():
        return True
    logger.info("%s: skipped, it needs training objects of two classes and a labelled test object", what)
    return False


def encoder_entry(card: "EncoderCard") -> dict[str, Any]:
    """Return what a ``result.json`` says about the encoder."""
    return {
        "builder": card.builder,
        "method": card.method,
        "labels": card.labels,
        "sha256": card.weights_sha256,
        "num_parameters": card.num_parameters,
    }


def result_header(
    stage: str, name: str, *, card: "EncoderCard", store: "ObjectStore", protocol: dict[str, Any]
) -> dict[str, Any]:
    """Return what every ``result.json`` begins with: encoder, data and protocol."""
    labelled = store.labels >= 0
    return {
        "format": 1,
        "stage": stage,
        "name": name,
        "task": "classification",
        "encoder": encoder_entry(card),
        "data": {
            "digest": store.info.digest,
            "num_train": int((labelled & (store.splits == "train")).sum()),
            "num_test": int((labelled & (store.splits == "test")).sum()),
            "classes": list(store.info.classes),
        },
        "protocol": protocol,
    }


def summarise(runs: Sequence[dict[str, Any]], metrics: Sequence[str], *, prefix: str = "") -> dict[str, float]:
    """Return mean and standard deviation (n - 1; 0 for one run) of some metrics over runs."""
    import numpy as np

    summary = {}
    for metric in metrics:
        values = np.array([run[metric] for run in runs])
        summary[f"{prefix}{metric}/mean"] = float(values.mean())
        summary[f"{prefix}{metric}/std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return summary
