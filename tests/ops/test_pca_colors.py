"""Colours of features: main directions, the same every time, outliers clipped."""

import numpy as np
import pytest
import torch

from pointloom.ops.pca_colors import pca_colors


def test_channels_follow_the_main_directions() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.uniform(-1, 1, (500, 3)) * [9, 3, 1]
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0][:3]
    color = pca_colors(torch.from_numpy((hidden @ turn).astype(np.float32))).numpy().astype(np.float64)
    for channel in range(3):
        correlation = np.corrcoef(color[:, channel], hidden[:, channel])[0, 1]
        assert abs(correlation) > 0.95
    assert color.min() == 0
    assert color.max() == 255


def test_blocks_of_rows_give_the_same_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    feature = torch.randn(500, 6) + 3
    whole = pca_colors(feature)
    monkeypatch.setattr("pointloom.ops.pca_colors._ROWS", 64)
    assert (pca_colors(feature).int() - whole.int()).abs().max() <= 1


def test_outliers_do_not_take_the_contrast() -> None:
    feature = torch.randn(400, 5)
    feature[0] = 1e4
    assert pca_colors(feature)[1:, 1].float().std() > 20


def test_order_of_rows_does_not_matter_and_narrow_features_work() -> None:
    feature = torch.randn(100, 2)
    order = torch.randperm(100)
    color = pca_colors(feature)
    difference = color[order].int() - pca_colors(feature[order]).int()
    assert difference.abs().max() <= 1
    assert (color[:, 2] == color[0, 2]).all()
