"""Our Point-MAE classifier computes what the official one computes; protocols have the published sizes and rules."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointloom.models import build_encoder
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.structures import PointBatch
from pointloom.tasks.classification import Classifier, vote_passes
from pointloom.train.optim import parameter_groups

OFFICIAL_NAMES = {
    "encoder.patch_embed.first": "encoder.first_conv.0",
    "encoder.patch_embed.norm1": "encoder.first_conv.1",
    "encoder.patch_embed.second": "encoder.first_conv.3",
    "encoder.patch_embed.third": "encoder.second_conv.0",
    "encoder.patch_embed.norm2": "encoder.second_conv.1",
    "encoder.patch_embed.fourth": "encoder.second_conv.3",
    "encoder.position_embed": "pos_embed",
    "encoder.transformer.blocks": "blocks.blocks",
    "encoder.norm": "norm",
    "encoder.cls_token": "cls_token",
    "encoder.cls_position": "cls_pos",
    "head": "cls_head_finetune",
}


def official_name(name: str) -> str:
    ours = max((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), key=len)
    return OFFICIAL_NAMES[ours] + name[len(ours) :]


@pytest.fixture(scope="module")
def small(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "mae_cls_modelnet40_small.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def classifier(small: dict[str, np.ndarray]) -> Classifier:
    encoder = PointMAEEncoder(
        num_groups=32, group_size=16, dim=48, depth=2, num_heads=6, embed_hidden=(128, 256),
        drop_path=0.0, class_token=True, init="official", skip_near_origin=1e-3,
    )  # fmt: skip
    classifier = Classifier(encoder, head="mlp3", num_classes=40, label_smoothing=0.0)
    state = {}
    for name, value in classifier.state_dict().items():
        state[name] = torch.from_numpy(small[f"state/{official_name(name)}"]).reshape(value.shape)
    classifier.load_state_dict(state)
    return classifier.eval()


def test_every_official_weight_has_a_place(classifier: Classifier, small: dict[str, np.ndarray]) -> None:
    ours = {official_name(name) for name in classifier.state_dict()}
    assert ours == {key.removeprefix("state/") for key in small if key.startswith("state/")}
    assert sum(p.numel() for p in classifier.parameters()) == int(small["n_params"])


def test_tokens_logits_and_loss_equal_the_official_ones(classifier: Classifier, small: dict[str, np.ndarray]) -> None:
    batch = PointBatch(
        coord=torch.from_numpy(small["pts"]), label=torch.from_numpy(small["labels"]).long(), row=torch.arange(4)
    )
    with torch.inference_mode():
        (level,) = classifier.encoder(classifier.encoder.group(batch.coord))
        logits, losses = classifier.predict(batch).numpy(), classifier(batch)
    assert level.summary is not None
    tokens = torch.cat([level.summary.unsqueeze(1), level.tokens], dim=1).numpy()
    for found, expected in ((tokens, small["norm_tokens"]), (logits, small["logits"])):
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert losses["loss"].item() == pytest.approx(float(small["loss"]), rel=1e-5)
    assert losses["train_oa"].item() == pytest.approx(float(small["acc"]))


def test_weight_decay_spares_what_the_official_rule_spares(
    classifier: Classifier, small: dict[str, np.ndarray]
) -> None:
    """The class token is spared, its position is not."""
    names = {id(parameter): official_name(name) for name, parameter in classifier.named_parameters()}
    plain, decayed = parameter_groups(classifier, weight_decay=0.05)
    spared = {
        name for name in names.values() if small[f"state/{name}"].ndim == 1 or name.endswith(".bias") or "token" in name
    }
    assert "cls_pos" not in spared
    assert {names[id(p)] for p in plain["params"]} == spared  # type: ignore[attr-defined]
    assert {names[id(p)] for p in decayed["params"]} == set(names.values()) - spared  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("head", "num_classes", "count"),
    [("mlp3", 40, 22_099_752), ("mlp3", 15, 22_093_327), ("mlp_linear", 15, 21_837_327)],
)
def test_published_sizes_have_the_published_parameter_counts(head: str, num_classes: int, count: int) -> None:
    encoder = build_encoder("point_mae_small", class_token=True)
    classifier = Classifier(encoder, head=head, num_classes=num_classes, label_smoothing=0.0)
    assert sum(p.numel() for p in classifier.parameters()) == count


def tiny(freeze: str = "none", head: str = "mlp_linear") -> Classifier:
    encoder = build_encoder("point_mae_tiny", num_groups=8, group_size=8, class_token=True, drop_path=0.5)
    return Classifier(encoder, head=head, num_classes=3, label_smoothing=0.0, freeze=freeze)


def clouds() -> PointBatch:
    generator = torch.Generator().manual_seed(2)
    coord = torch.randn(6, 32, 3, generator=generator)
    return PointBatch(coord=coord, label=torch.arange(6) % 3, row=torch.arange(6))


def test_transfer_trains_head_and_class_token_faster_and_decays_all_of_them() -> None:
    """Point-PQAE and ReCon: every parameter with `cls` in its official name."""
    classifier = tiny()
    *_, quick = parameter_groups(classifier, weight_decay=0.05, fast=classifier.fast_parameters, fast_factor=10.0)
    names = {name for name, p in classifier.named_parameters() if any(p is q for q in quick["params"])}  # type: ignore[attr-defined]
    assert names == {name for name, _ in classifier.named_parameters() if "cls" in official_name(name)}


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [("encoder", {"head.0.weight", "head.0.bias"}),
     ("official", {"head.0.weight", "head.0.bias", "encoder.cls_token", "encoder.cls_position"})],
)  # fmt: skip
def test_frozen_protocols_train_what_they_say(freeze: str, trained: set[str]) -> None:
    classifier = tiny(freeze).train()
    mean = classifier.encoder.patch_embed.norm1.running_mean.clone()  # type: ignore[attr-defined]
    classifier(clouds())["loss"].backward()
    assert {name for name, p in classifier.named_parameters() if p.grad is not None} == trained
    drifted = not torch.equal(mean, classifier.encoder.patch_embed.norm1.running_mean)  # type: ignore[attr-defined]
    assert drifted == (freeze == "official")


def test_misspelt_freeze_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown freeze 'linear'; known: none, encoder, official"):
        tiny("linear")


def test_smoothing_over_the_other_classes_is_a_value_of_smoothing_over_all() -> None:
    """Point-M2AE: the target keeps 0.7, each of the other 39 classes has 0.3 / 39."""
    logits, label = torch.randn(5, 40), torch.arange(5)
    target = torch.full((5, 40), 0.3 / 39).scatter(1, label[:, None], 0.7)
    expected = -(target * logits.log_softmax(-1)).sum(-1).mean()
    assert torch.allclose(F.cross_entropy(logits, label, label_smoothing=0.3 * 40 / 39), expected, atol=1e-6)


class Fixed(Classifier):
    """A classifier whose logits are the first coordinates of the clouds."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.freeze = "none"

    def predict(self, batch: PointBatch) -> torch.Tensor:
        return batch.coord[:, 0]


def draw(*logits: tuple[float, float, float]) -> Iterator[PointBatch]:
    coord = torch.tensor(logits).unsqueeze(1)
    yield PointBatch(coord=coord, label=torch.zeros(len(coord), dtype=torch.long), row=torch.arange(len(coord)))


def test_passes_vote_with_averaged_logits() -> None:
    """Two weak votes for class 1 lose against one strong one for class 0 when logits are averaged."""
    passes = [
        [draw((9.0, 0.0, 0.0)), draw((0.0, 1.0, 0.0)), draw((0.0, 1.0, 0.0))],
        [draw((0.0, 2.0, 0.0)), draw((1.0, 0.0, 0.0)), draw((0.0, 0.0, 1.5))],
    ]
    found = vote_passes(Fixed(), passes, device=torch.device("cpu"), precision="fp32")
    assert found.tolist() == [[0], [1]]
