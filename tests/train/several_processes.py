"""What one process and several are asked to train: ``torchrun -m tests.train.several_processes FOLDER CASES``."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pointloom.structures import AlignBatch, Losses, PointBatch, SceneBatch, SceneViews
from pointloom.train.loop import Optimization, fit
from pointloom.train.processes import is_leader

ROWS = 5  # of two processes, one has two and one has three
EPOCHS, STEPS = 2, 3


class Normed(nn.Module):
    """A regression behind a batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.unused = nn.Linear(2, 2)

    def forward(self, batch: PointBatch) -> Losses:
        from pointloom.ops import share_of_mean

        error = self.net(batch.coord.flatten(0, 1)).square()
        return {"loss": share_of_mean(error.mean(), count=len(error))}


def point_batch() -> PointBatch:
    from tests.methods.test_m2ae import clouds

    return clouds(ROWS)


def align_batch() -> AlignBatch:
    from tests.methods.test_align import batch_of

    return batch_of(ROWS)


def joint_batch() -> AlignBatch:
    from tests.methods.test_joint import batch

    return batch(ROWS)


def scene_batch() -> SceneBatch:
    from tests.methods.test_mm3dscene import scenes

    return scenes(90, 120, 70, 100, 80)


def scene_views() -> SceneViews:
    from tests.models.scene_views import turned_views

    return turned_views((120, 90, 150, 100, 80))


def build(case: str) -> tuple[nn.Module, Callable[[], Any]]:
    """Return a method with drop-path and what it learns from."""
    from tests.methods import (
        test_align,
        test_distill,
        test_joint,
        test_m2ae,
        test_mae,
        test_mm3dscene,
        test_msc,
        test_msm,
        test_pqae,
    )

    methods: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
        "normed": (Normed, point_batch),
        "mae": (lambda: test_mae.tiny_method(test_mae.tiny_encoder(drop_path=0.3)), point_batch),
        "m2ae": (lambda: test_m2ae.tiny_method(test_m2ae.tiny_encoder(drop_path=0.3)), point_batch),
        "m2ae-official": (lambda: test_m2ae.tiny_method(compat="official"), point_batch),
        "pqae": (test_pqae.tiny_method, point_batch),
        "pqae-unused": (lambda: test_pqae.tiny_method(compat="official", position="none"), point_batch),
        "align": (lambda: test_align.tiny_align(multi_positive=True), align_batch),
        "joint": (test_joint.tiny_joint, joint_batch),
        "mm3dscene": (lambda: test_mm3dscene.method({"mask": "random", "gap": "random"}), scene_batch),
        "mm3dscene-batch": (lambda: test_mm3dscene.method({"normalisation": "batch"}), scene_batch),
        "msm": (
            lambda: test_msm.method(
                crop_points=60, network=lambda: test_msm.network(attention_dropout=0.3, drop_path=0.3)
            ),
            scene_views,
        ),
        "msm-shared": (lambda: test_msm.method(crop_points=60, mask_shared=True, mask="top_down"), scene_views),
        "msc": (lambda: test_msc.method(max_pairs=40), scene_views),
        "distill": (lambda: test_distill.tiny_distill(test_mae.tiny_encoder(class_token=True)), point_batch),
        "distill-points": (lambda: test_distill.tiny_distill(local_target="points", mask="block"), point_batch),
    }
    made, batch = methods[case]
    return made(), batch


class Loader:
    """Batches that are a function of epoch and step."""

    def __init__(self, batch: Callable[[], Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def batches(self, epoch: int, *, first_step: int) -> Iterator[Any]:
        for step in range(first_step, STEPS):
            with torch.random.fork_rng():
                torch.manual_seed(1000 + 10 * epoch + step)
                batch = self.batch()
            yield batch


def train(
    case: str, *, state: Path | None = None, on_step: Callable[[], None] = lambda: None
) -> list[dict[str, float]]:
    """Train a case and return its curve."""
    torch.manual_seed(0)
    method, batch = build(case)
    optimization = Optimization(
        epochs=EPOCHS, lr=1e-3, min_lr=0.0, weight_decay=0.05, warmup_epochs=0.5, clip_norm=1.0, schedule="step",
        precision="fp32",
    )  # fmt: skip
    return fit(
        method, Loader(batch), optimization=optimization, device=torch.device("cpu"), seed=3, state=state,
        on_step=on_step,
    )  # fmt: skip


def main(folder: str, *cases: str) -> None:
    """Train all cases and write their curves."""
    torch.set_num_threads(1)
    for case in cases:
        curve = train(case)
        if is_leader():
            (Path(folder) / f"{case}.json").write_text(json.dumps(curve))


if __name__ == "__main__":
    main(*sys.argv[1:])
