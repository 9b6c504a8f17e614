"""Our Point-PQAE computes what the official one computes: same weights and views give the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pointloom.methods.decoupled_views import View
from pointloom.methods.pqae import PQAE
from pointloom.models.point_mae import PointMAEEncoder, point_mae_small
from pointloom.models.positional_query import embed_numbers

OFFICIAL_NAMES = {
    "encoder.cls_token": "PQAE_encoder.cls_token",
    "encoder.cls_position": "PQAE_encoder.cls_pos",
    "encoder.patch_embed.first": "PQAE_encoder.encoder.first_conv.0",
    "encoder.patch_embed.norm1": "PQAE_encoder.encoder.first_conv.1",
    "encoder.patch_embed.second": "PQAE_encoder.encoder.first_conv.3",
    "encoder.patch_embed.third": "PQAE_encoder.encoder.second_conv.0",
    "encoder.patch_embed.norm2": "PQAE_encoder.encoder.second_conv.1",
    "encoder.patch_embed.fourth": "PQAE_encoder.encoder.second_conv.3",
    "encoder.position_embed": "PQAE_encoder.pos_embed",
    "encoder.transformer.blocks": "PQAE_encoder.blocks.blocks",
    "encoder.norm": "PQAE_encoder.norm",
    "query": "PQattn_contrast",
    "decoder.blocks": "PQ_decoder.blocks",
    "norm": "PQ_decoder.norm",
    "predict": "PQ_linear",
    "unused_position_embed": "decoder_pos_embed",
}


def official_name(name: str) -> str:
    ours = max((prefix for prefix in OFFICIAL_NAMES if name.startswith(prefix)), key=len)
    return OFFICIAL_NAMES[ours] + name[len(ours) :]


def official_method(encoder: PointMAEEncoder, *, depth: int, drop_path: float) -> PQAE:
    return PQAE(
        encoder, min_crop=0.6, frame="box", rotate=True, position="relative", query=True, decoder_depth=depth,
        decoder_heads=6, drop_path=drop_path, loss="cdl2", compat="official", small_start=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "pqae_pretrain_small.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture
def fresh() -> PQAE:
    encoder = PointMAEEncoder(
        num_groups=32, group_size=16, dim=48, depth=2, num_heads=6, embed_hidden=(128, 256),
        drop_path=0.0, class_token=True, init="official", skip_near_origin=1e-3,
    )  # fmt: skip
    return official_method(encoder, depth=2, drop_path=0.0)


@pytest.fixture
def method(fresh: PQAE, small: dict[str, np.ndarray]) -> PQAE:
    state = {
        name: torch.from_numpy(small[f"state/{official_name(name)}"]).reshape(value.shape)
        for name, value in fresh.state_dict().items()
    }
    fresh.load_state_dict(state)
    return fresh


@pytest.fixture
def views(small: dict[str, np.ndarray]) -> tuple[View, View]:
    """The two views of the file; only points and the way between their middles matter to the network."""
    delta = torch.from_numpy(small["delta_2minus1"])
    zero, one = torch.zeros_like(delta), torch.ones_like(delta)
    first, second = (torch.from_numpy(small[f"view{i}"]) for i in (1, 2))
    unknown = [torch.zeros(each.shape[:2], dtype=torch.long) for each in (first, second)]
    return (
        View(first, unknown[0], middle=zero, origin=zero, scale=one, angle=zero[:, 0]),
        View(second, unknown[1], middle=delta, origin=zero, scale=one, angle=zero[:, 0]),
    )


def close(ours: torch.Tensor, theirs: np.ndarray) -> bool:
    """Float32 parity: 1e-4 of the tensor's scale."""
    return bool((ours - torch.from_numpy(theirs)).abs().max() <= 1e-4 * np.abs(theirs).max())


def test_every_official_weight_has_a_place(fresh: PQAE, small: dict[str, np.ndarray]) -> None:
    ours = {official_name(name) for name in fresh.state_dict()}
    theirs = {key.removeprefix("state/") for key in small if key.startswith("state/")}
    assert ours == theirs
    assert sum(p.numel() for p in fresh.parameters()) == int(small["n_params"])


def test_positions_are_embedded_as_officially(small: dict[str, np.ndarray]) -> None:
    ours = embed_numbers(torch.from_numpy(small["pos_embed_test_in"]), 48)
    assert np.allclose(ours, small["pos_embed_test_out"], atol=1e-6)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_tokens_queries_and_predictions_equal_the_official_ones(
    method: PQAE, views: tuple[View, View], small: dict[str, np.ndarray], mode: str
) -> None:
    method.train(mode == "train")
    assert method.query is not None
    patches = [method.encoder.group(view.coord) for view in views]
    encoded = [method.encoder(groups)[0] for groups in patches]
    way = views[1].middle - views[0].middle
    guesses = method.cross_reconstruct(*views)
    for number, (groups, tokens, other, sign, guess) in enumerate(
        zip(patches, encoded, encoded[::-1], (1, -1), guesses, strict=True), start=1
    ):
        assert close(tokens.tokens, small[f"{mode}/enc{number}"])
        assert tokens.summary is not None
        assert close(tokens.summary, small[f"{mode}/cls{number}"][:, 0])
        position = method.embed_position(groups[0].centers, sign * way)
        assert np.allclose(position, small[f"query_pos{number}"], atol=1e-5)
        asked = method.query(position, other.tokens)
        assert close(asked, small[f"{mode}/query_attn{number}"])
        decoded = method.norm(method.decoder(asked, torch.zeros_like(asked)))
        assert close(decoded, small[f"{mode}/dec{number}"])
        assert close(guess.points.flatten(2), small[f"{mode}/pred{number}"])
        assert np.array_equal(groups[0].index, small[f"knn_idx{number}"])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_losses_equal_the_official_ones(
    method: PQAE, views: tuple[View, View], small: dict[str, np.ndarray], mode: str
) -> None:
    method.train(mode == "train")
    for number, guess in enumerate(method.cross_reconstruct(*views), start=1):
        assert method.distance(guess).item() == pytest.approx(float(small[f"{mode}/pq_loss{number}"]), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_equal_the_official_ones(
    method: PQAE, views: tuple[View, View], small: dict[str, np.ndarray], dtype: torch.dtype
) -> None:
    """In single precision norms; in double precision, where no maximum is decided by round-off, every direction too."""
    method.to(dtype).train()
    exact = [View(*(each.to(dtype) if each.is_floating_point() else each for each in vars(v).values())) for v in views]
    torch.stack([method.distance(guess) for guess in method.cross_reconstruct(*exact)]).sum().backward()
    for name, parameter in method.named_parameters():
        official = official_name(name)
        if f"train/nograd/{official}" in small:
            assert parameter.grad is None, name
            continue
        expected = torch.from_numpy(small[f"train/grad/{official}"]).reshape(parameter.shape)
        assert parameter.grad is not None, name
        # biases in front of a batch norm have a gradient of zero in exact arithmetic: 1e-5 is round-off
        difference = parameter.grad.norm() - expected.norm() if dtype == torch.float32 else parameter.grad - expected
        assert difference.norm() <= 1e-3 * expected.norm() + 1e-5, name


def test_fresh_weights_are_drawn_as_officially(fresh: PQAE, small: dict[str, np.ndarray]) -> None:
    for name, value in fresh.state_dict().items():
        if value.dtype != torch.float32:
            continue
        mean, std, _, _ = small[f"init_stats/{official_name(name)}"]
        spread = 5 * std / value.numel() ** 0.5  # five standard errors
        assert value.mean().item() == pytest.approx(mean, abs=2 * spread), name
        assert value.std(correction=0).item() == pytest.approx(std, abs=2 * spread), name


def test_published_size_has_the_published_parameter_count() -> None:
    encoder = point_mae_small(class_token=True)
    assert sum(p.numel() for p in encoder.parameters()) == 21_825_792
    method = official_method(encoder, depth=4, drop_path=0.1)
    assert method.query is not None
    assert sum(p.numel() for p in method.query.parameters()) == 590_208
    assert sum(p.numel() for p in method.parameters()) == 29_597_024
