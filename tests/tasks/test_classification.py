"""Accuracies against hand-computed cases; the classifier learns."""

import numpy as np
import pytest
import torch

from pointloom.models import build_encoder
from pointloom.structures import PointBatch
from pointloom.tasks.classification import Classifier, accuracy, predict_draws


def test_accuracies_equal_a_hand_computed_case() -> None:
    found = accuracy(np.array([1.0, 0.0, 1.0, 0.5]), np.array([0, 0, 0, 7]))
    assert found.oa == pytest.approx(62.5)
    assert found.macc == pytest.approx(100 * (2 / 3 + 0.5) / 2)


def batch() -> PointBatch:
    """Balls and flat discs."""
    coord = torch.randn(16, 64, 3)
    label = torch.arange(16) % 2
    coord[label == 1, :, 2] = 0
    return PointBatch(coord=coord, label=label, row=torch.arange(16))


@pytest.mark.parametrize("head", ["linear", "mlp3"])
def test_classifier_learns_to_tell_balls_from_discs(head: str) -> None:
    classifier = Classifier(build_encoder("pointnet"), head=head, num_classes=2, label_smoothing=0.0)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    for _ in range(100):
        losses = classifier(batch())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    test = batch()
    probability = predict_draws(classifier, [[test], [test]], device=torch.device("cpu"), precision="fp32")
    assert probability.shape == (2, 16, 2)
    assert torch.allclose(probability.sum(-1), torch.ones(2, 16), atol=1e-5)
    assert (probability[0].argmax(-1) == test.label).float().mean() > 0.9
    assert classifier.training


@pytest.mark.parametrize("name", ["point_mae_tiny", "point_m2ae_tiny"])
@pytest.mark.parametrize("freeze", ["none", "encoder", "official"])
def test_every_trainable_parameter_gets_a_gradient_and_frozen_ones_none(name: str, freeze: str) -> None:
    args = {"num_groups": 8, "group_size": 8, "class_token": True} if name == "point_mae_tiny" else {"depth": 1}
    encoder = build_encoder(name, **args, drop_path=0.0)  # type: ignore[arg-type]
    classifier = Classifier(encoder, head="mlp3", num_classes=2, label_smoothing=0.0, freeze=freeze)
    coord = torch.randn(4, 128, 3)
    classifier(PointBatch(coord=coord, label=torch.arange(4) % 2, row=torch.arange(4)))["loss"].backward()
    for parameter_name, parameter in classifier.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
