"""Alignment and masked distillation with the hierarchical encoder."""

import pytest
import torch
from torch.nn import functional as F

from pointloom.methods.align import Align
from pointloom.methods.distill import Distill, visible_first
from pointloom.methods.masking import multi_scale_mask
from pointloom.models.hierarchical_decoder import HierarchicalDecoder
from pointloom.ops import gather_points
from pointloom.structures import AlignBatch
from tests.methods.test_m2ae import clouds, tiny_encoder, tiny_method


def tiny_distill(**changed: object) -> Distill:
    settings: dict[str, object] = {
        "mask_ratio": 0.8, "mask": "random", "local_target": "tokens", "local_weight": 1.0, "global_term": True,
        "shuffle": True, "decoder_depth": 1, "global_depth": 1, "decoder_heads": 2,
    }  # fmt: skip
    return Distill(tiny_encoder(), tiny_encoder(drop_path=0.5), **(settings | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("local_target", "shuffle"),
    [("tokens", True), ("multi", True), ("multi", False), ("points", True), ("points", False)],
)
@pytest.mark.parametrize("global_depth", [0, 1])
def test_student_learns_at_all_scales_and_the_teacher_does_not(
    local_target: str, shuffle: bool, global_depth: int
) -> None:
    method, batch = tiny_distill(local_target=local_target, shuffle=shuffle, global_depth=global_depth), clouds()
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method(batch)["loss"].backward()
    for name, parameter in method.named_parameters():
        other = "encoder.norms.1" if shuffle or local_target == "multi" else "encoder.norms.0"
        unread = name.startswith(("teacher.", "encoder.norms.0", other))
        assert (parameter.grad is None) == unread, name
        assert parameter.requires_grad != unread, name
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.state_dict().items())


def test_targets_are_the_teachers_coarsest_tokens_and_its_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = tiny_distill(), clouds()
    groups = method.encoder.group(batch.coord)
    hidden = method.mask(groups[-1].centers, ratio=0.8)
    taught = method.teacher(groups)
    right = gather_points(taught[-1].tokens, visible_first(hidden))
    feature = taught[-1].tokens.mean(1) + taught[-1].tokens.amax(1)
    monkeypatch.setattr(method, "mask", lambda *_, **__: hidden)
    monkeypatch.setattr(method.local_decoder, "everywhere", lambda *_: right)
    monkeypatch.setattr(method.global_decoder, "forward", lambda *_: feature)
    monkeypatch.setattr(method, "predict", torch.nn.Identity())
    assert method(batch)["loss"].item() == pytest.approx(0, abs=1e-6)


def test_tokens_of_two_scales_are_targets_everywhere_and_reach_the_finer_scale_from_the_coarsest_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, batch = tiny_distill(local_target="multi", global_term=False), clouds()
    decoder = method.local_decoder
    assert isinstance(decoder, HierarchicalDecoder)
    assert decoder.skip is False
    _, middle, top = method.teacher(method.encoder.group(batch.coord))
    monkeypatch.setattr(method, "predict", torch.nn.Identity())
    monkeypatch.setattr(method, "predict_coarsest", torch.nn.Identity())
    for coarsest, finer, expected in (
        (top.tokens, middle.tokens, 0.0), (-top.tokens, middle.tokens, 1.0), (top.tokens, -middle.tokens, 1.0),
    ):  # fmt: skip
        monkeypatch.setattr(decoder, "forward", lambda *_, found=(coarsest, finer): list(found))
        assert method(batch)["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_points_as_target_are_those_of_point_m2ae() -> None:
    """Same encoder, decoder, head and mask: the local term is Point-M2AE's loss."""
    method, batch = tiny_distill(local_target="points", global_term=False, shuffle=False), clouds()
    m2ae = tiny_method(method.encoder, points_per_token=4)  # type: ignore[arg-type]
    m2ae.decoder, m2ae.predict = method.local_decoder, method.predict  # type: ignore[assignment]
    losses = []
    for each in (method, m2ae):
        torch.manual_seed(5)
        losses.append(each(batch)["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_shuffled_tokens_reach_the_finer_scale_without_a_way_around() -> None:
    method, batch = tiny_distill(local_target="points", global_term=False, shuffle=True), clouds()
    decoder = method.local_decoder
    assert isinstance(decoder, HierarchicalDecoder)
    assert decoder.skip is False
    groups = method.encoder.group(batch.coord)
    masks = multi_scale_mask(groups, method.mask(groups[-1].centers, ratio=0.8))
    tokens = method.encoder(groups, masks)
    first, second, still, again = (
        decoder.train(training)(tokens, groups, masks)[0] for training in (True, True, False, False)
    )
    assert not torch.allclose(first, second)
    assert torch.equal(still, again)


def test_likeness_is_that_of_the_coarsest_patches() -> None:
    method, coord = tiny_distill().eval(), clouds().coord
    likeness = method.compare(coord)
    assert likeness.hidden.sum(1).tolist() == [8] * 4
    assert likeness.cosine.shape == likeness.hidden.shape == (4, 10)
    assert torch.equal(likeness.centers, method.encoder.group(coord)[-1].centers)
    assert likeness.visible.any(1).all()
    assert not likeness.visible.all(1).any()


def test_alignment_uses_the_sum_of_mean_and_maximum_and_trains_all_scales() -> None:
    method, batch = (
        Align(tiny_encoder(), text_dim=8, image_dims={"dino": 6}, per_teacher_temperature=True, multi_positive=False),
        clouds(),
    )
    everything = torch.ones(4, dtype=torch.bool)
    losses = method(
        AlignBatch(
            points=batch, text=F.normalize(torch.randn(4, 8), dim=-1), has_text=everything, text_id=torch.arange(4),
            images={"dino": F.normalize(torch.randn(4, 6), dim=-1)}, has_image={"dino": everything},
        )
    )  # fmt: skip
    assert method.heads.text.in_features == 32
    losses["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith(("encoder.norms.0", "encoder.norms.1")):
            assert not parameter.requires_grad, name  # tokens of the finer scales are not read
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
