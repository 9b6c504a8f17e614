"""What alignment promises, on tiny clouds."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pointloom.errors import CheckpointError
from pointloom.methods.align import Align, Heads, load_heads, save_heads
from pointloom.ops import contrastive_loss
from pointloom.structures import AlignBatch
from pointloom.train.optim import parameter_groups
from tests.methods.test_mae import clouds, tiny_encoder

DIMS = {"shade": 10, "look": 6}


def tiny_align(**changed: bool) -> Align:
    switches = {"per_teacher_temperature": True, "multi_positive": False} | changed
    return Align(tiny_encoder(class_token=True), text_dim=12, image_dims=DIMS, **switches)


def batch_of(num: int = 4) -> AlignBatch:
    everyone = torch.ones(num, dtype=torch.bool)
    return AlignBatch(
        points=clouds(num),
        text=F.normalize(torch.randn(num, 12), dim=-1),
        has_text=everyone,
        text_id=torch.arange(num),
        images={name: F.normalize(torch.randn(num, dim), dim=-1) for name, dim in DIMS.items()},
        has_image=dict.fromkeys(DIMS, everyone),
    )


def test_loss_is_the_sum_of_one_term_per_teacher() -> None:
    method, batch = tiny_align().eval(), batch_of()
    losses = method(batch)
    feature = method.encoder.pool(method.encoder(method.encoder.group(batch.points.coord)))
    weights = {"text": method.heads.text.weight} | {n: method.heads.images[n].weight for n in DIMS}
    for name, target in {"text": batch.text, **batch.images}.items():
        query = F.normalize(feature @ weights[name].T, dim=-1)  # type: ignore[operator]
        expected = contrastive_loss(query, target, scale=torch.tensor(1 / 0.07), present=batch.has_text)
        assert losses[f"loss/{name}"].item() == pytest.approx(expected.item(), rel=1e-5)
    parts = [value.item() for name, value in losses.items() if name.startswith("loss/")]
    assert losses["loss"].item() == pytest.approx(sum(parts), rel=1e-6)
    assert losses["scale"].item() == pytest.approx(1 / 0.07)


def test_every_parameter_gets_a_finite_gradient() -> None:
    method = tiny_align()
    method(batch_of())["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_missing_modalities_take_no_part() -> None:
    method, batch = tiny_align().eval(), batch_of()
    nothing = torch.zeros(4, dtype=torch.bool)
    half = torch.tensor([True, False, True, False])
    losses = method(
        AlignBatch(batch.points, batch.text, half, batch.text_id, batch.images, {"shade": nothing, "look": half})
    )
    assert losses["loss/shade"].item() == 0.0
    rows = half.nonzero().flatten()
    kept = method.encoder.pool(method.encoder(method.encoder.group(batch.points.coord[rows])))
    expected = contrastive_loss(
        method.heads.embed(kept), batch.text[rows], scale=torch.tensor(1 / 0.07), present=half[rows]
    )
    assert losses["loss/text"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_same_sentences_count_as_right_only_where_asked_and_are_counted() -> None:
    batch = batch_of()
    same = AlignBatch(
        batch.points,
        batch.text[[0, 0, 2, 3]],
        batch.has_text,
        torch.tensor([5, 5, 6, 7]),
        batch.images,
        batch.has_image,
    )
    method = tiny_align().eval()
    strict = method(same)
    method.multi_positive = True
    lenient = method(same)
    assert strict["duplicates"].item() == lenient["duplicates"].item() == 0.5
    assert strict["loss/text"].item() != pytest.approx(lenient["loss/text"].item(), rel=1e-3)
    assert strict["loss/look"].item() == lenient["loss/look"].item()


def test_clouds_without_caption_are_no_duplicates_of_each_other() -> None:
    batch = batch_of()
    missing = torch.tensor([True, False, False, True])
    losses = tiny_align()(
        AlignBatch(batch.points, batch.text, missing, torch.tensor([1, -1, -1, 2]), batch.images, batch.has_image)
    )
    assert losses["duplicates"].item() == 0.0


@pytest.mark.parametrize(("per_teacher", "count"), [(True, 3), (False, 1)])
def test_temperatures_are_learned_clamped_and_not_decayed(per_teacher: bool, count: int) -> None:
    method = tiny_align(per_teacher_temperature=per_teacher)
    assert method.log_scale.shape == (count,)
    assert len(method.scales()) == 3
    plain, decayed = parameter_groups(method, weight_decay=0.1)
    assert any(each is method.log_scale for each in plain["params"])  # type: ignore[attr-defined]
    assert any(each is method.heads.text.weight for each in decayed["params"])  # type: ignore[attr-defined]
    for start, end in ((9.0, math.log(100)), (-2.0, 0.0), (2.0, 2.0)):
        with torch.no_grad():
            method.log_scale.fill_(start)
        method.clamp_scales()
        assert method.log_scale.tolist() == pytest.approx([end] * count)


def test_four_clouds_find_their_captions_and_views() -> None:
    torch.manual_seed(0)
    method, batch = tiny_align(), batch_of()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    for _ in range(60):
        loss = method(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.clamp_scales()
    assert loss.item() < 0.3  # 3 ln 4 = 4.2 without knowledge
    feature = method.encoder.pool(method.encoder(method.encoder.group(batch.points.coord)))
    assert (method.heads.embed(feature) @ batch.text.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_teachers_of_one_model_can_share_a_projection(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = Align(
        tiny_encoder(class_token=True), text_dim=10, image_dims=DIMS, per_teacher_temperature=True,
        multi_positive=False, with_text=["shade"],
    )  # fmt: skip
    feature = torch.randn(3, shared.encoder.global_dim)
    assert torch.equal(shared.heads.embed(feature), shared.heads.embed(feature, "shade"))
    assert [tuple(weight.shape) for weight in shared.heads.parameters()] == [
        (10, feature.shape[1]),
        (6, feature.shape[1]),
    ]
    batch = batch_of()
    losses = shared(replace(batch, text=batch.images["shade"]))
    assert losses["loss/text"].item() == losses["loss/shade"].item()
    assert set(losses) >= {"loss/text", "loss/shade", "loss/look"}
    save_heads(tmp_path, shared, text_teacher="clip", encoder_sha256="e" * 64, features_digest="f" * 64)
    heads, card = load_heads(tmp_path)
    for teacher in (None, *DIMS):
        assert torch.equal(heads.embed(feature, teacher), shared.heads.embed(feature, teacher))
    assert set(card.scales) == {"text", *DIMS}
    with pytest.raises(ValueError, match="look: no image teacher with 10 values"):
        Heads(8, text_dim=10, image_dims=DIMS, with_text=["look"])


def test_heads_come_back_from_disk_and_damage_is_explained(tmp_path: Path) -> None:
    method = tiny_align()
    save_heads(tmp_path, method, text_teacher="words", encoder_sha256="e" * 64, features_digest="f" * 64)
    heads, card = load_heads(tmp_path)
    feature = torch.randn(3, method.encoder.global_dim)
    for teacher in (None, *DIMS):
        assert torch.equal(heads.embed(feature, teacher), method.heads.embed(feature, teacher))
    assert np.allclose(heads.embed(feature).norm(dim=-1).detach(), 1, atol=1e-6)
    assert (card.text_teacher, card.text_dim, card.image_dims) == ("words", 12, DIMS)
    assert card.scales == pytest.approx({"text": 1 / 0.07, "shade": 1 / 0.07, "look": 1 / 0.07})
    content = json.loads((tmp_path / "heads.json").read_text())
    (tmp_path / "heads.json").write_text(json.dumps(content | {"text_dim": 13}))
    with pytest.raises(CheckpointError, match=r"damaged .* run `pointloom align` again"):
        load_heads(tmp_path)
    (tmp_path / "heads.json").write_text(json.dumps(content | {"format": 9}))
    with pytest.raises(CheckpointError, match="format 9, this version reads 1"):
        load_heads(tmp_path)
    with pytest.raises(CheckpointError, match=r"heads\.json is missing; give an encoder of `pointloom align`"):
        load_heads(tmp_path / "nowhere")
