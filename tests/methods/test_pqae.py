"""What cross reconstruction promises, on tiny clouds."""

import math

import pytest
import torch
from torch.nn import functional as F

from pointloom.methods.decoupled_views import draw_view
from pointloom.methods.pqae import PQAE
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.models.positional_query import PositionalQuery, embed_numbers
from pointloom.structures import Groups, PointBatch


def tiny_method(**changed: object) -> PQAE:
    encoder = PointMAEEncoder(
        num_groups=8, group_size=8, dim=24, depth=2, num_heads=2, embed_hidden=(16, 32), drop_path=0.0,
        class_token=True, init="xavier", skip_near_origin=0.0,
    )  # fmt: skip
    arguments: dict[str, object] = {
        "min_crop": 0.6, "frame": "box", "rotate": True, "position": "relative", "query": True, "decoder_depth": 1,
        "decoder_heads": 2, "drop_path": 0.0, "loss": "cdl2", "compat": "clean", "small_start": True,
    }  # fmt: skip
    return PQAE(encoder, **(arguments | changed))  # type: ignore[arg-type]


def clouds(num: int = 4) -> PointBatch:
    coord = F.normalize(torch.randn(num, 64, 3), dim=-1) * torch.rand(num, 1, 3)
    return PointBatch(coord=coord, label=torch.zeros(num, dtype=torch.long), row=torch.arange(num))


def test_a_view_is_the_neighbourhood_of_one_of_its_points() -> None:
    coord = clouds().coord
    view = draw_view(coord, min_crop=0.6, frame="cloud", rotate=False)
    kept = view.index.shape[1]
    assert int(0.6 * 64) <= kept <= 64
    for cloud, index in zip(coord, view.index, strict=True):
        distance = (cloud - cloud[index[0]]).norm(dim=-1)
        assert set(index.tolist()) == set(distance.argsort()[:kept].tolist())
    assert torch.equal(view.coord, coord.gather(1, view.index.unsqueeze(-1).expand(-1, -1, 3)))


def test_crops_differ_between_views_and_have_one_size_per_batch() -> None:
    coord = clouds(8).coord
    sizes = {draw_view(coord, min_crop=0.6, frame="box", rotate=True).index.shape[1] for _ in range(20)}
    assert len(sizes) > 5
    assert min(sizes) >= 38
    assert max(sizes) <= 64


def test_a_view_fills_the_cube_along_every_axis_before_it_is_turned() -> None:
    view = draw_view(clouds().coord, min_crop=0.6, frame="box", rotate=False)
    assert torch.allclose(view.coord.amin(1), torch.tensor(-1.0))
    assert torch.allclose(view.coord.amax(1), torch.tensor(1.0), atol=1e-4)


def test_the_turn_keeps_heights_and_the_distance_from_the_axis() -> None:
    coord = clouds().coord
    view = draw_view(coord, min_crop=1.0, frame="cloud", rotate=True)
    source = coord.gather(1, view.index.unsqueeze(-1).expand(-1, -1, 3))
    assert torch.equal(view.coord[..., 2], source[..., 2])
    assert torch.allclose(view.coord[..., :2].norm(dim=-1), source[..., :2].norm(dim=-1), atol=1e-6)
    assert ((view.angle >= 0) & (view.angle < 2 * math.pi)).all()
    assert len(view.angle.unique()) == len(coord)
    first, angle = source[0, 5], view.angle[0]
    expected = torch.stack(
        [first[0] * angle.cos() - first[1] * angle.sin(), first[0] * angle.sin() + first[1] * angle.cos()]
    )
    assert torch.allclose(view.coord[0, 5, :2], expected, atol=1e-6)


@pytest.mark.parametrize("frame", ["box", "middle", "cloud"])
def test_a_view_knows_the_way_back_to_the_cloud(frame: str) -> None:
    coord = clouds().coord
    view = draw_view(coord, min_crop=0.6, frame=frame, rotate=True)
    source = coord.gather(1, view.index.unsqueeze(-1).expand(-1, -1, 3))
    assert torch.allclose(view.to_cloud(view.coord), source, atol=1e-5)
    assert torch.allclose(view.middle, (source.amin(1) + source.amax(1)) / 2)


def test_position_of_zero_is_zeros_and_ones_in_turn() -> None:
    pattern = torch.cat([torch.zeros(32), torch.ones(32)]).repeat(6)
    assert torch.equal(embed_numbers(torch.zeros(1, 1, 6), 384)[0, 0], pattern)


def test_every_number_of_a_position_has_its_own_block_of_frequencies() -> None:
    position = torch.tensor([[[0.3, -1.2, 2.0, 0.0, 5.0, -0.7]]])
    embedded = embed_numbers(position, 24).view(6, 2, 2)
    for number, block in zip(position.flatten().tolist(), embedded, strict=True):
        phases = [number, number / 100]  # 10000^0 and 10000^(-1/2)
        expected = [[math.sin(p) for p in phases], [math.cos(p) for p in phases]]
        assert torch.allclose(block, torch.tensor(expected), atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 12 channels, got 16"):
        embed_numbers(position, 16)


def test_positional_query_equals_attention_head_by_head() -> None:
    query = PositionalQuery(12, num_heads=3)
    position, tokens = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    q, (k, v) = query.q(position), query.kv(tokens).split(12, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        weight = (q[..., part] @ k[..., part].transpose(1, 2) / 2.0).softmax(-1)  # 2 = square root of the head's width
        heads.append(weight @ v[..., part])
    assert torch.allclose(query(position, tokens), query.proj(torch.cat(heads, dim=-1)), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_points_of_a_view_cannot_change_their_own_guess(training: bool) -> None:
    """Only where its patches lie is known of the guessed view; all shape must come from the other one."""
    method = tiny_method().train(training)
    coord = clouds().coord
    (first,), (second,) = (method.encoder.group(method.draw_view(coord).coord) for _ in range(2))
    way = torch.randn(4, 3)

    def guess_second(source: Groups, target: Groups) -> torch.Tensor:
        (tokens,) = method.encoder([source])
        return method.guess(tokens.tokens, target.centers, way)

    noise = torch.randn_like(first.neighborhood)
    plain = guess_second(first, second)
    own = guess_second(first, Groups(second.centers, second.neighborhood + noise, second.index))
    other = guess_second(Groups(first.centers, first.neighborhood + noise, first.index), second)
    assert torch.equal(plain, own)
    assert not torch.allclose(plain, other)


def test_swapping_the_views_swaps_the_guesses() -> None:
    method = tiny_method().eval()
    coord = clouds().coord
    first, second = method.draw_view(coord), method.draw_view(coord)
    forth, back = method.cross_reconstruct(first, second), method.cross_reconstruct(second, first)
    assert torch.allclose(forth[0].points, back[1].points, atol=1e-6)
    assert torch.allclose(forth[1].points, back[0].points, atol=1e-6)


def test_losses_do_not_depend_on_the_order_of_a_views_points() -> None:
    method = tiny_method().eval()
    coord = clouds().coord
    first, second = method.draw_view(coord), method.draw_view(coord)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(first.coord.shape[1] - 1)])
    shuffled = type(first)(**{**vars(first), "coord": first.coord[:, order], "index": first.index[:, order]})
    expected = [method.distance(guess) for guess in method.cross_reconstruct(first, second)]
    got = [method.distance(guess) for guess in method.cross_reconstruct(shuffled, second)]
    assert torch.allclose(torch.stack(expected), torch.stack(got), atol=1e-6)


def test_without_position_the_guess_knows_nothing_of_the_target() -> None:
    method = tiny_method(position="none").eval()
    tokens, way = torch.randn(4, 8, 24), torch.zeros(4, 3)
    guesses = []
    for centers in (torch.zeros(4, 8, 3), torch.randn(4, 8, 3)):
        torch.manual_seed(1)
        guesses.append(method.guess(tokens, centers, way))
    assert torch.equal(*guesses)
    assert not torch.equal(guesses[1], method.guess(tokens, torch.zeros(4, 8, 3), way))  # other random numbers


def test_relative_position_depends_on_the_way_between_the_views_and_absolute_position_does_not() -> None:
    tokens, centers = torch.randn(4, 8, 24), torch.randn(4, 8, 3)
    ways = torch.zeros(4, 3), torch.ones(4, 3)
    relative = tiny_method().eval()
    assert not torch.allclose(*(relative.guess(tokens, centers, way) for way in ways))
    absolute = tiny_method(position="absolute", frame="cloud", rotate=False).eval()
    assert torch.equal(*(absolute.guess(tokens, centers, way) for way in ways))


def test_losses_of_both_directions_add_up() -> None:
    losses = tiny_method()(clouds())
    assert losses["loss"].item() == pytest.approx((losses["loss/first"] + losses["loss/second"]).item())


ABLATIONS: dict[str, dict[str, object]] = {
    "paper": {},
    "no position": {"position": "none"},
    "absolute position": {"position": "absolute", "frame": "cloud", "rotate": False},
    "no query": {"query": False},
    "no crop": {"min_crop": 1.0, "frame": "middle"},
    "no stretch": {"frame": "middle"},
    "no turn": {"rotate": False},
    "cdl1": {"loss": "cdl1"},
    "cosine": {"loss": "cosine"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_parameter_gets_a_finite_gradient(name: str) -> None:
    method = tiny_method(**ABLATIONS[name])
    losses = method(clouds())
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    for parameter_name, parameter in method.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_official_method_has_one_part_that_nothing_uses() -> None:
    method = tiny_method(compat="official")
    method(clouds())["loss"].backward()
    unused = {name for name, parameter in method.named_parameters() if parameter.grad is None}
    assert {name.split(".")[0] for name in unused} == {"unused_position_embed"}
    assert len(unused) == 4
    assert unused == {name for name, parameter in method.named_parameters() if not parameter.requires_grad}


def test_cosine_loss_of_a_perfect_guess_is_minus_one() -> None:
    method = tiny_method(loss="cosine")
    view = method.draw_view(clouds().coord)
    guess, _ = method.cross_reconstruct(view, view)
    perfect = type(guess)(guess.target, guess.target.neighborhood)
    assert method.distance(perfect).item() == pytest.approx(-1.0)


@pytest.mark.slow
def test_two_clouds_can_be_learned_by_heart() -> None:
    method, coord = tiny_method(), clouds(2).coord
    views = method.draw_view(coord), method.draw_view(coord)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(120):
        loss = torch.stack([method.distance(guess) for guess in method.cross_reconstruct(*views)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_small_start_begins_near_the_scale_of_a_patch() -> None:
    method, coord = tiny_method(), clouds().coord
    guess, _ = method.cross_reconstruct(method.draw_view(coord), method.draw_view(coord))
    assert guess.points.std() < 2 * guess.target.neighborhood.std()


def test_reconstruction_lies_in_the_frame_of_the_cloud() -> None:
    method = tiny_method().eval()
    batch = clouds()
    with torch.no_grad():  # every patch is guessed as its centre
        method.predict.weight.zero_()
        method.predict.bias.zero_()
    made = method.reconstruct(batch.coord)
    assert 38 <= int(made.visible[0].sum()) <= 64
    assert made.points.shape == (4, 8 * 8, 3)
    distance = (made.points.unsqueeze(2) - batch.coord.unsqueeze(1)).norm(dim=-1)
    assert (distance.amin(-1) < 1e-5).all()  # and centres are points of the cloud


def test_misspelt_choices_and_impossible_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown position 'nearby'; known: relative, absolute, none"):
        tiny_method(position="nearby")
    with pytest.raises(ValueError, match="unknown loss 'cdl3'"):
        tiny_method(loss="cdl3")
    with pytest.raises(ValueError, match="unknown compat 'strict'"):
        tiny_method(compat="strict")
    with pytest.raises(ValueError, match="min_crop must be above 0"):
        tiny_method(min_crop=0.0)
    with pytest.raises(ValueError, match="set frame to cloud and rotate to false"):
        tiny_method(position="absolute")
