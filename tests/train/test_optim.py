"""Parameter groups of the transfer protocols and the double update of the segmentation scripts."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from pointloom.structures import Losses, PointBatch
from pointloom.train.loop import Optimization, fit
from pointloom.train.optim import learning_rate, parameter_groups


class Net(nn.Module):
    """An encoder with a class token and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.first = nn.Linear(3, 4)
        self.encoder.cls_token = nn.Parameter(torch.randn(4))
        self.head = nn.Linear(4, 2)

    def forward(self, batch: PointBatch) -> Losses:
        feature: Tensor = self.encoder.first(batch.coord.mean(1)) + self.encoder.cls_token
        return {"loss": nn.functional.cross_entropy(10 * self.head(feature), batch.label)}


class OneBatch:
    """The same batch, once per epoch."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        coord = torch.randn(8, 5, 3, generator=generator)
        self.batch = PointBatch(coord=coord, label=torch.arange(8) % 2, row=torch.arange(8))

    def __len__(self) -> int:
        return 1

    def batches(self, epoch: int, *, first_step: int) -> Iterator[PointBatch]:
        yield self.batch


def optimization(**changed: object) -> Optimization:
    values = {
        "epochs": 2, "lr": 1e-3, "min_lr": 1e-6, "weight_decay": 0.05, "warmup_epochs": 0.0, "clip_norm": 0.01,
        "schedule": "step", "precision": "fp32",
    }  # fmt: skip
    return Optimization(**(values | changed))  # type: ignore[arg-type]


def test_fast_parameters_form_a_decayed_group_of_their_own() -> None:
    net = Net()
    fast = ("head.", "encoder.cls_token")
    plain, decayed, quick = parameter_groups(net, weight_decay=0.05, fast=fast, fast_factor=10.0)
    assert [p is net.encoder.first.bias for p in plain["params"]] == [True]  # type: ignore[attr-defined]
    assert [p is net.encoder.first.weight for p in decayed["params"]] == [True]  # type: ignore[attr-defined]
    assert {id(p) for p in quick["params"]} == {  # type: ignore[attr-defined]
        id(p) for p in (net.head.weight, net.head.bias, net.encoder.cls_token)
    }
    assert (quick["weight_decay"], quick["factor"]) == (0.05, 10.0)


def test_name_that_nothing_has_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"begins with heed\."):
        parameter_groups(Net(), weight_decay=0.05, fast=("heed.",))


@pytest.mark.parametrize("double_step", [False, True])
def test_training_equals_plain_adamw_with_the_same_updates(double_step: bool) -> None:
    torch.manual_seed(3)
    ours, theirs = Net(), Net()
    theirs.load_state_dict(ours.state_dict())
    loader = OneBatch()
    settings = optimization(double_step=double_step, fast=("head.", "encoder.cls_token"), fast_factor=10.0)
    fit(ours, loader, optimization=settings, device=torch.device("cpu"), seed=0, state=None)
    slow = torch.optim.AdamW([
        {"params": [theirs.encoder.first.bias], "weight_decay": 0.0},
        {"params": [theirs.encoder.first.weight], "weight_decay": 0.05},
    ])  # fmt: skip
    fast = torch.optim.AdamW([*theirs.head.parameters(), theirs.encoder.cls_token], weight_decay=0.05)
    for epoch in range(2):
        for optimizer, base in ((slow, 1e-3), (fast, 1e-2)):
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[-1]["lr"] = learning_rate(
                schedule="step", epoch=float(epoch), epochs=2, base=base, minimum=1e-6, warmup_epochs=0.0
            )
        theirs(loader.batch)["loss"].backward()
        if double_step:
            slow.step()
            fast.step()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 0.01)
        assert norm > 0.01
        slow.step()
        fast.step()
        theirs.zero_grad()
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs.state_dict()[name], atol=1e-6), name


def test_votenets_rate_drops_after_80_120_and_160_of_180_epochs() -> None:
    def rate(epoch: float) -> float:
        return learning_rate(schedule="votenet", epoch=epoch, epochs=180, base=1e-3, minimum=0.0, warmup_epochs=0.0)

    found = [rate(epoch) for epoch in (0.0, 79.9, 80.0, 119.9, 120.0, 159.9, 160.0, 179.9)]
    assert found == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])
