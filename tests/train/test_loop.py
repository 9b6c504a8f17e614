"""The loop: exact resume, clear failure, learning."""

import itertools
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pointloom.errors import CheckpointError, PointloomError
from pointloom.structures import Losses, PointBatch
from pointloom.train import loop
from pointloom.train.loop import Optimization, fit
from pointloom.train.optim import learning_rate, parameter_groups

CPU = torch.device("cpu")


class Toy(nn.Module):
    """A regression with dropout, so that the random state matters."""

    def __init__(self, *, blow_up_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.blow_up_at, self.calls = blow_up_at, 0

    def forward(self, batch: PointBatch) -> Losses:
        self.calls += 1
        loss = (self.net(batch.coord[:, 0]).squeeze(-1) - batch.label).square().mean()
        return {"loss": loss * (float("nan") if self.calls == self.blow_up_at else 1.0)}


class ToyLoader:
    def __len__(self) -> int:
        return 4

    def batches(self, epoch: int, *, first_step: int) -> Iterator[PointBatch]:
        for step in range(first_step, len(self)):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            coord = torch.randn(8, 1, 3, generator=generator)
            yield PointBatch(coord=coord, label=(coord[:, 0, 0] > 0).long(), row=torch.arange(8))


def settings(epochs: int = 5) -> Optimization:
    return Optimization(
        epochs=epochs, lr=0.05, min_lr=0.0, weight_decay=0.0, warmup_epochs=1.0, clip_norm=1.0, schedule="step",
        precision="fp32",
    )  # fmt: skip


def train(state: Path | None, **more: object) -> tuple[Toy, list[dict[str, float]]]:
    torch.manual_seed(1)
    toy = Toy()
    return toy, fit(toy, ToyLoader(), optimization=settings(), device=CPU, seed=3, state=state, **more)  # type: ignore[arg-type]


def test_loss_goes_down() -> None:
    _, curve = train(None)
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert [row["epoch"] for row in curve] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stop_after", [1, 6, 8, 11])
def test_interrupted_run_resumes_bit_by_bit(tmp_path: Path, stop_after: int) -> None:
    whole, curve = train(None)
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=interrupt)
    calls = itertools.count()
    resumed, curve_again = train(tmp_path, on_step=lambda: next(calls))
    assert next(calls) == 5 * len(ToyLoader())  # progress begins where the earlier attempt ended
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [row["loss"] for row in curve_again] == [row["loss"] for row in curve]


def test_killed_run_resumes_bit_by_bit_from_its_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    whole, _ = train(None)
    steps = 0

    class Killed(BaseException):
        pass

    def kill() -> None:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, on_step=kill)
    resumed, _ = train(tmp_path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_method_is_told_of_every_update_after_it() -> None:
    class Follower(Toy):
        seen: list[float]

        def after_step(self) -> None:
            self.seen.append(float(self.net[0].weight.detach().sum()))

    torch.manual_seed(1)
    follower = Follower()
    follower.seen = []
    fit(follower, ToyLoader(), optimization=settings(2), device=CPU, seed=3, state=None)
    assert len(follower.seen) == 2 * len(ToyLoader())
    assert follower.seen[-1] == float(follower.net[0].weight.detach().sum())


def test_loss_that_is_not_finite_stops_with_its_place() -> None:
    toy = Toy(blow_up_at=6)
    with pytest.raises(PointloomError, match=r"loss is nan at epoch 2, step 2 .*lower the learning rate"):
        fit(toy, ToyLoader(), optimization=settings(), device=CPU, seed=0, state=None)


def test_damaged_training_state_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / loop.STATE_FILE).write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="delete that folder"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (300, {0: 1e-6, 1: 1e-6, 2: 1.009e-4, 10: 9.001e-4, 11: 9.973e-4, 300: 1.027e-6}),
        (400, {0: 1e-6, 1: 1e-6, 2: 1.009e-4, 10: 9.001e-4, 11: 9.985e-4, 300: 1.501e-4}),
    ],
)
def test_epoch_schedule_equals_the_published_curve(epochs: int, expected: dict[int, float]) -> None:
    """Values of timm 0.4.5 as the official code calls it, base 1e-3; Point-M2AE stops a curve of 400 after 300."""
    for epoch, value in expected.items():
        rate = learning_rate(
            schedule="epoch", epoch=epoch + 0.5, epochs=epochs, base=1e-3, minimum=1e-6, warmup_epochs=10.0
        )
        assert rate == pytest.approx(value, rel=5e-4), epoch


def test_schedule_may_be_longer_than_the_run() -> None:
    longer = replace(settings(epochs=3), schedule_epochs=8, schedule="epoch")
    curve = fit(Toy(), ToyLoader(), optimization=longer, device=CPU, seed=3, state=None)
    expected = [
        learning_rate(schedule="epoch", epoch=float(epoch), epochs=8, base=0.05, minimum=0.0, warmup_epochs=1.0)
        for epoch in range(3)
    ]
    assert [row["lr"] for row in curve] == expected
    assert expected[2] > 0.04


def test_step_schedule_starts_and_ends_at_the_minimum() -> None:
    rates = [
        learning_rate(schedule="step", epoch=e / 10, epochs=20, base=1.0, minimum=0.1, warmup_epochs=2.0)
        for e in range(201)
    ]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[20] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))


def test_vectors_biases_and_tokens_are_not_decayed() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(2, 2))
    module.bias = nn.Parameter(torch.zeros(2))
    module.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
    module.cls_position = nn.Parameter(torch.zeros(1, 1, 2))
    plain, decayed = parameter_groups(module, weight_decay=0.05)
    assert plain["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(module.weight), id(module.cls_position)]  # type: ignore[attr-defined]
