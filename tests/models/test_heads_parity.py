"""Our Point-M2AE part segmentation computes what the official one computes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointloom.models import build_encoder
from pointloom.models.part_segmentation import PointSegmenter
from tests.methods.m2ae_official import formula, official_name

TOLERANCE = 1e-4  # of the tensor's scale

HEAD_NAMES = (
    (r"^head\.category_embed\.linear", "label_conv.0"),
    (r"^head\.category_embed\.norm", "label_conv.1"),
    (r"^head\.propagations\.(\d)\.layers\.(\d)\.linear", r"propagations.\1.mlp_convs.\2"),
    (r"^head\.propagations\.(\d)\.layers\.(\d)\.norm", r"propagations.\1.mlp_bns.\2"),
    (r"^head\.first\.linear", "convs1"), (r"^head\.first\.norm", "bns1"),
    (r"^head\.second\.linear", "convs2"), (r"^head\.second\.norm", "bns2"),
    (r"^head\.third\.linear", "convs3"), (r"^head\.third\.norm", "bns3"),
    (r"^head\.last", "convs4"),
)  # fmt: skip


def official(name: str) -> str:
    for ours, theirs in HEAD_NAMES:
        if re.match(ours, name):
            return re.sub(ours, theirs, name)
    return official_name(name)


@pytest.fixture(scope="module")
def reference(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "m2ae_partseg_full.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def segmenter() -> PointSegmenter:
    encoder = build_encoder("point_m2ae_base", drop_path=0.0, local_attention=True, skip_near_origin=1e-3)
    segmenter = PointSegmenter(encoder, num_parts=50, num_categories=16)
    state = {}
    for name, value in segmenter.state_dict().items():
        whole = value.dtype == torch.int64
        state[name] = value if whole else torch.from_numpy(formula(official(name), tuple(value.shape)))
    segmenter.load_state_dict(state)
    return segmenter.eval()


def test_parameter_count_is_the_published_one(segmenter: PointSegmenter, reference: dict[str, np.ndarray]) -> None:
    assert sum(p.numel() for p in segmenter.parameters()) == int(reference["n_params"]) == 25_474_354


@torch.inference_mode()
def test_point_features_and_log_probabilities_equal_the_official_ones(
    segmenter: PointSegmenter, reference: dict[str, np.ndarray]
) -> None:
    coord, category = torch.from_numpy(reference["pts"]), torch.from_numpy(reference["cls_onehot"])
    levels = segmenter.encoder(segmenter.encoder.group(coord))
    for i, level in enumerate(levels):
        spread = segmenter.head.propagations[i](coord, level.centers, level.tokens).transpose(1, 2).numpy()  # type: ignore[union-attr,operator,index]
        for found, key in ((spread.mean(-1), "mean_over_points"), (spread[..., :64], "first64")):
            expected = reference[f"prop{i}_{key}"]
            assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), (i, key)
    found = segmenter(coord, category).log_softmax(-1)
    expected = reference["log_probs"]
    assert np.abs(found.numpy() - expected).max() <= TOLERANCE * np.abs(expected).max()
    loss = F.nll_loss(found.flatten(0, 1), torch.from_numpy(reference["nll_target"]).flatten().long())
    assert loss.item() == pytest.approx(float(reference["nll"]), rel=1e-5)
