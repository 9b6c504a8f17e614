"""What all downstream tasks share: common parameters, jobs that survive an interruption, the choice of an epoch."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from pydantic import Field

from pointloom.stages.params import EncoderArgs, OptimParams, StageParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointloom.structures import Encoder
    from pointloom.train.parallel import Advance

    Arrays = dict[str, NDArray[np.generic]]

OUTCOME = "outcome.json"


class TuningParams(StageParams):
    """Parameters that every downstream task has; each adds its own."""

    encoder: str = Field(description="entry of params.yaml:pretrain to start from")
    encoder_args: EncoderArgs = Field(description="builder arguments to change, e.g. class_token")
    batch_size: int = Field(ge=2)
    selection: Literal["last", "official"] = Field(
        description="last: weights of the last epoch; official: best epoch on the test split, the field's habit"
    )
    optim: OptimParams


@dataclass(frozen=True)
class Places:
    """Paths of the stage.

    Attributes:
        dataset: Prepared store.
        encoder: Folder of the encoder to start from.
        result: Folder to write.
        state: Resume state of all stages.
    """

    dataset: Path
    encoder: Path
    result: Path
    state: Path


class Job(Protocol):
    """One run in a process of its own."""

    @property
    def state(self) -> Path:
        """Folder for resume state and, when done, the outcome; every job has another one."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)


@contextmanager
def result_folder(places: Places, *, shaped_by: Mapping[str, Any]) -> Iterator[tuple[Path, Path]]:
    """Give the folder to write results into, put in place on success, and the one for resume state."""
    from pointloom.data.replace import replaced_folder
    from pointloom.train.state import resume_state

    with (
        replaced_folder(places.result) as folder,
        resume_state(places.state, stage="finetune", shaped_by=shaped_by) as resume,
    ):
        yield folder, resume


def run_all(
    function: "Callable[[AnyJob, Advance], dict[str, Any]]",
    jobs: Sequence[AnyJob],
    *,
    steps: Sequence[int],
    label: str,
) -> list[dict[str, Any]]:
    """Run every job, the longest first, and return the outcomes in the order of ``jobs``.

    Progress counts the steps of jobs whose outcome no earlier attempt has kept.
    """
    from pointloom.data.workers import available_cores
    from pointloom.train.device import best_device
    from pointloom.train.parallel import run_jobs

    by_length = sorted(range(len(jobs)), key=lambda i: -steps[i])
    finished = run_jobs(
        function,
        [jobs[i] for i in by_length],
        device=best_device(),
        num_workers=available_cores(),
        total_steps=sum(own for job, own in zip(jobs, steps, strict=True) if not (job.state / OUTCOME).exists()),
        label=label,
    )
    outcomes = {job.state: outcome for job, outcome in finished}
    return [outcomes[job.state] for job in jobs]


def kept_outcome(state: Path, train_and_test: Callable[[], tuple[dict[str, Any], "Arrays"]]) -> dict[str, Any]:
    """Train and test one run and keep the outcome; one that is already on disk is returned as it is.

    Args:
        state: Folder of the run.
        train_and_test: Returns what goes to JSON and the arrays.
    """
    import numpy as np

    from pointloom.stages.runs import write_json

    outcome_file, arrays_file = state / OUTCOME, state / "outcome.npz"
    if not outcome_file.exists():
        state.mkdir(parents=True, exist_ok=True)
        record, arrays = train_and_test()
        np.savez(arrays_file, **arrays)  # type: ignore[arg-type]
        write_json(outcome_file, record)
    content: dict[str, Any] = json.loads(outcome_file.read_text(encoding="utf-8"))
    with np.load(arrays_file, allow_pickle=False) as kept:
        return content | {key: kept[key] for key in kept.files}


def tuned_encoder(folder: Path, encoder_args: EncoderArgs) -> "Encoder":
    """Load the pre-trained weights, or draw fresh ones from the current seed where the encoder has none."""
    from pointloom.models import build_encoder
    from pointloom.train.checkpoint import load_encoder_module, read_card

    card = read_card(folder)
    if card.method == "untrained":
        return build_encoder(card.builder, **(card.builder_args | encoder_args))
    return load_encoder_module(folder, allow_missing=("cls_token", "cls_position"), **encoder_args)[0]


class BestEpoch:
    """Remember the test outcome of the epoch that is best on the test split (``selection: official``).

    Args:
        path: File that survives an interruption.
        evaluate: Tests the current weights.
        score: What is to be as large as possible.
    """

    def __init__(self, path: Path, evaluate: "Callable[[], Arrays]", score: "Callable[[Arrays], float]") -> None:
        self.path, self.evaluate, self.score = path, evaluate, score

    def look(self, row: Mapping[str, float]) -> None:
        """Test after an epoch, unless an earlier attempt has."""
        import numpy as np

        seen, best, arrays = 0.0, -1.0, {}
        if self.path.exists():
            with np.load(self.path, allow_pickle=False) as kept:
                arrays = {key: kept[key] for key in kept.files}
            seen, best = float(arrays.pop("seen")), float(arrays.pop("best"))
        if row["epoch"] <= seen:
            return
        new = self.evaluate()
        score = self.score(new)
        if score > best:
            best, arrays = score, new
        temporary = self.path.with_suffix(".tmp.npz")
        np.savez(temporary, seen=row["epoch"], best=best, **arrays)
        temporary.replace(self.path)

    def read(self) -> "Arrays":
        """Return the kept outcome."""
        import numpy as np

        with np.load(self.path, allow_pickle=False) as kept:
            return {key: kept[key] for key in kept.files if key not in {"seen", "best"}}


def write_curves(
    path: Path,
    outcomes: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str],
    columns: Sequence[str] = ("epoch", "loss", "lr", "train_oa"),
) -> None:
    """Write one line per run and epoch; ``keys`` of the run come first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, *columns])
        for each in outcomes:
            run = [each["run"][key] for key in keys]
            writer.writerows([*run, *(row[column] for column in columns)] for row in each["curve"])
