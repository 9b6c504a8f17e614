"""The contrastive loss: equal to its definition, whole across processes, deaf to missing rows."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn import functional as F

from pointloom.ops import contrastive_loss, gather_rows


def unit(rows: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(rows, dim), dim=-1)


def brute_force(
    query: np.ndarray, target: np.ndarray, scale: float, present: np.ndarray, identity: np.ndarray | None
) -> float:
    """Both cross-entropies row by row, as the equations write them."""
    rows = np.flatnonzero(present)
    if len(rows) == 0:
        return 0.0
    losses = []
    for a, b in ((query, target), (target, query)):
        for i in rows:
            weights = {j: math.exp(scale * float(a[i] @ b[j])) for j in rows}
            right = [j for j in rows if j == i or (identity is not None and identity[j] == identity[i])]
            losses.append(-math.log(sum(weights[j] for j in right) / sum(weights.values())))
    return float(np.sum(losses) / (2 * len(rows)))


@pytest.mark.parametrize("missing", [[], [0], [1, 4, 5], [0, 1, 2, 3, 4], list(range(6))])
@pytest.mark.parametrize("ids", [None, [3, 3, 1, 3, 2, 2]])
def test_loss_equals_its_definition_with_missing_rows_and_several_right_answers(
    missing: list[int], ids: list[int] | None
) -> None:
    query, target = unit(6, 5), unit(6, 5)
    present = torch.ones(6, dtype=torch.bool)
    present[missing] = False
    identity = None if ids is None else torch.tensor(ids)
    loss = contrastive_loss(query, target, scale=torch.tensor(7.0), present=present, identity=identity)
    expected = brute_force(
        query.double().numpy(), target.double().numpy(), 7.0, present.numpy(), None if ids is None else np.array(ids)
    )
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("batch", "dim"), [(512, 768), (64, 512)])
def test_loss_of_unrelated_vectors_at_the_initial_temperature(batch: int, dim: int) -> None:
    """The expected value is ln(batch) plus half the variance of the logits, (1 / 0.07)^2 / dim: 6.37 and 4.36."""
    expected = math.log(batch) + 0.5 / 0.07**2 / dim
    present = torch.ones(batch, dtype=torch.bool)
    losses = [
        contrastive_loss(unit(batch, dim), unit(batch, dim), scale=torch.tensor(1 / 0.07), present=present)
        for _ in range(4)
    ]
    assert torch.stack(losses).mean().item() == pytest.approx(expected, abs=0.03)


def test_perfect_pairs_have_no_loss_and_finite_gradients_at_the_largest_scale() -> None:
    target = unit(16, 64)
    query = target.clone().requires_grad_()
    log_scale = torch.tensor(math.log(100)).requires_grad_()
    loss = contrastive_loss(query, target, scale=log_scale.exp(), present=torch.ones(16, dtype=torch.bool))
    loss.backward()
    assert 0 <= loss.item() < 1e-4
    for tensor in (query, log_scale):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_rows_without_target_get_no_gradient_and_change_nothing() -> None:
    query = unit(5, 4).requires_grad_()
    target, present = unit(5, 4), torch.tensor([True, False, True, True, False])
    scale = torch.tensor(10.0)
    loss = contrastive_loss(query, target, scale=scale, present=present)
    loss.backward()
    assert query.grad is not None
    assert torch.equal(query.grad[~present], torch.zeros(2, 4))
    assert torch.isfinite(query.grad).all()
    other = torch.where(present.unsqueeze(1), target, 100.0)
    assert torch.equal(contrastive_loss(query, other, scale=scale, present=present), loss)


def test_batch_without_any_target_has_no_loss_and_no_gradient() -> None:
    query = unit(4, 3).requires_grad_()
    scale = torch.tensor(14.0, requires_grad=True)
    loss = contrastive_loss(query, torch.zeros(4, 3), scale=scale, present=torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert query.grad is not None
    assert not query.grad.any()


def test_identical_targets_are_false_negatives_unless_any_of_them_is_right() -> None:
    target = unit(4, 8)
    target[1] = target[0]
    present, scale, identity = torch.ones(4, dtype=torch.bool), torch.tensor(100.0), torch.tensor([0, 0, 1, 2])
    strict = contrastive_loss(target.clone(), target, scale=scale, present=present)
    lenient = contrastive_loss(target.clone(), target, scale=scale, present=present, identity=identity)
    assert strict.item() == pytest.approx(0.5 * math.log(2), abs=1e-3)
    assert lenient.item() == pytest.approx(0, abs=1e-3)


def test_soft_targets_over_identical_vectors_would_change_nothing() -> None:
    """Why several right answers are a summed probability: equal shares are the plain loss, gradient included."""
    target = unit(5, 8)
    target[1] = target[0]
    share = torch.eye(5)
    share[:2, :2] = 0.5
    gradients, values = [], []
    for soft in (False, True):
        query = target.flip(0).clone().requires_grad_()
        logits = 9.0 * query @ target.T
        plain = contrastive_loss(query, target, scale=torch.tensor(9.0), present=torch.ones(5, dtype=torch.bool))
        shared = -0.5 * sum((share * each.log_softmax(1)).sum(1).mean() for each in (logits, logits.T))
        loss = shared if soft else plain
        gradients.append(torch.autograd.grad(loss, query)[0])
        values.append(loss.item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)


def half_of_the_gradient(data: dict[str, torch.Tensor]) -> torch.Tensor:
    """What ULIP's gather leaves of the gradient of the queries: that of queries looking for targets, by hand."""
    present, ids = data["present"].tolist(), data["ids"].tolist()
    query = F.normalize(data["input"] @ data["weight"], dim=-1).detach().requires_grad_()
    logits = data["log_scale"].exp().detach() * query @ data["target"].T
    loss = torch.zeros(())
    rows = [row for row in range(8) if present[row]]
    for row in rows:
        right = sum(logits[row, other].exp() for other in rows if ids[other] == ids[row])
        loss = loss - (right / sum(logits[row, other].exp() for other in rows)).log()
    (0.5 * loss / len(rows)).backward()
    assert query.grad is not None
    return query.grad


def _one_process(rank: int, world: int, port_file: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=world)
    data = torch.load(Path(folder) / "data.pt", weights_only=True)
    rows = slice(rank * 4, rank * 4 + 4)
    weight, log_scale = data["weight"].requires_grad_(), data["log_scale"].requires_grad_()
    query = F.normalize(data["input"][rows] @ weight, dim=-1)
    loss = contrastive_loss(
        query, data["target"][rows], scale=log_scale.exp(), present=data["present"][rows], identity=data["ids"][rows]
    )
    loss.backward()
    for gradient in (weight.grad, log_scale.grad):  # what data-parallel training does
        assert gradient is not None
        dist.all_reduce(gradient)
        gradient /= world
    query = query.detach().requires_grad_()
    contrastive_loss(
        query, data["target"][rows], scale=log_scale.exp().detach(), present=data["present"][rows],
        identity=data["ids"][rows], detached_gather=True,
    ).backward()  # fmt: skip
    found = {"weight": weight.grad, "log_scale": log_scale.grad, "detached": query.grad}
    torch.save(found, Path(folder) / f"gradient{rank}.pt")
    gathered = gather_rows(torch.full((2, 3), float(rank), requires_grad=True))
    assert gathered[:, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    dist.destroy_process_group()


def test_gradient_of_two_processes_equals_the_one_of_the_whole_batch(tmp_path: Path) -> None:
    """Rows are missing unevenly, equal sentences sit in different processes; ULIP's gather loses a half."""
    data = {
        "input": torch.randn(8, 6),
        "weight": torch.randn(6, 5),
        "target": unit(8, 5),
        "log_scale": torch.tensor(2.5),
        "present": torch.tensor([True, False, False, True, True, True, True, True]),
        "ids": torch.tensor([0, 1, 2, 3, 0, 4, 3, 5]),
    }
    torch.save(data, tmp_path / "data.pt")
    environment = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        mp.spawn(_one_process, args=(2, str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    finally:
        if environment is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = environment
    weight, log_scale = data["weight"].requires_grad_(), data["log_scale"].requires_grad_()
    query = F.normalize(data["input"] @ weight, dim=-1)
    contrastive_loss(
        query, data["target"], scale=log_scale.exp(), present=data["present"], identity=data["ids"]
    ).backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"gradient{rank}.pt", weights_only=True)
        assert torch.allclose(found["weight"], weight.grad, atol=1e-6)
        assert torch.allclose(found["log_scale"], log_scale.grad, atol=1e-6)
        assert torch.allclose(found["detached"], 2 * half_of_the_gradient(data)[rank * 4 : rank * 4 + 4], atol=1e-6)
