"""Published checkpoints become encoders that compute the same, and back, bit by bit; nothing is lost in silence."""

import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pointloom.cli import OFFICIAL, cli
from pointloom.convert import convert_checkpoint, describe, export_encoder
from pointloom.data.intake import TO_Z_UP
from pointloom.errors import CheckpointError, ParamsError
from pointloom.models import build_encoder
from pointloom.models.official_names import LAYOUTS, from_official, to_official
from pointloom.models.point_mae import PointMAEEncoder
from pointloom.structures import Groups
from pointloom.train.checkpoint import load_encoder_module, save_encoder

State = dict[str, torch.Tensor]
OBJECT_LAYOUTS = [layout for layout in OFFICIAL if layout != "msm"]  # that one has tests of its own


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the weight that the reference files have under an official name (golden/README.md)."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    if last == "running_mean":
        return torch.from_numpy(0.05 * z)
    if last == "running_var":
        return torch.from_numpy(1 + 0.1 * np.abs(z))
    if "token" in last or "cls_pos" in last:
        return torch.from_numpy(0.02 * z)
    if len(shape) == 1:
        return torch.from_numpy(1 + 0.1 * z if last == "weight" else 0.05 * z)
    return torch.from_numpy((z / np.sqrt(np.prod(shape[1:]))).astype(np.float32))


def blocks(prefix: str, depth: int, dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(depth):
        at = f"{prefix}.{i}"
        shapes |= {f"{at}.norm1.weight": (dim,), f"{at}.norm1.bias": (dim,)}
        shapes |= {f"{at}.norm2.weight": (dim,), f"{at}.norm2.bias": (dim,)}
        shapes |= {f"{at}.attn.qkv.weight": (3 * dim, dim)}
        shapes |= {f"{at}.attn.proj.weight": (dim, dim), f"{at}.attn.proj.bias": (dim,)}
        shapes |= {f"{at}.mlp.fc1.weight": (4 * dim, dim), f"{at}.mlp.fc1.bias": (4 * dim,)}
        shapes |= {f"{at}.mlp.fc2.weight": (dim, 4 * dim), f"{at}.mlp.fc2.bias": (dim,)}
    return shapes


def embedder(prefix: str, channels: int, first: int, second: int, dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {
        "first_conv.0": (first, channels, 1), "first_conv.3": (second, first, 1),
        "second_conv.0": (2 * second, 2 * second, 1), "second_conv.3": (dim, 2 * second, 1),
    }  # fmt: skip
    for name, shape in layers.items():
        shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    for name, width in {"first_conv.1": first, "second_conv.1": 2 * second}.items():
        shapes |= {f"{prefix}.{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{prefix}.{name}.num_batches_tracked"] = ()
    return shapes


def positions(prefix: str, hidden: int, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.0.weight": (hidden, 3), f"{prefix}.0.bias": (hidden,),
        f"{prefix}.2.weight": (dim, hidden), f"{prefix}.2.bias": (dim,),
    }  # fmt: skip


def plain_encoder(prefix: str, *, class_token: bool) -> dict[str, tuple[int, ...]]:
    """The published encoder of Point-MAE and Point-PQAE, written out from its description (spec of checkpoints)."""
    tokens = {f"{prefix}cls_token": (1, 1, 384), f"{prefix}cls_pos": (1, 1, 384)} if class_token else {}
    return {
        **tokens,
        **embedder(f"{prefix}encoder", 3, 128, 256, 384),
        **positions(f"{prefix}pos_embed", 128, 384),
        **blocks(f"{prefix}blocks.blocks", 12, 384),
        f"{prefix}norm.weight": (384,),
        f"{prefix}norm.bias": (384,),
    }


def hierarchical_encoder(*, norms: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {**embedder("h_encoder.token_embed.0", 3, 128, 256, 96)}
    shapes |= embedder("h_encoder.token_embed.1", 96, 96, 96, 192) | embedder(
        "h_encoder.token_embed.2", 192, 192, 192, 384
    )
    for scale, dim in enumerate((96, 192, 384)):
        shapes |= positions(f"h_encoder.encoder_pos_embeds.{scale}", dim, dim)
        shapes |= blocks(f"h_encoder.encoder_blocks.{scale}.blocks", 5, dim)
        if norms:
            shapes |= {f"h_encoder.encoder_norms.{scale}.{part}": (dim,) for part in ("weight", "bias")}
    return shapes


DECODERS: dict[str, dict[str, tuple[int, ...]]] = {
    "point-mae": {"mask_token": (1, 1, 384), "increase_dim.0.weight": (96, 384, 1), "MAE_decoder.norm.bias": (384,)},
    "point-pqae": {
        "PQ_linear.weight": (96, 384),
        "PQattn_contrast.q.weight": (384, 384),
        "PQ_decoder.norm.bias": (384,),
    },
    "point-m2ae": {"mask_token": (1, 384), "rec_head.weight": (48, 192, 1), "token_prop.0.fuse.net.0.bias": (192,)},
}
HEAD = {"cls_head_finetune.0.weight": (256, 768), "cls_head_finetune.8.bias": (40,)}


def pretrained(layout: str) -> State:
    shapes = {
        "point-mae": lambda: plain_encoder("MAE_encoder.", class_token=False),
        "point-pqae": lambda: plain_encoder("PQAE_encoder.", class_token=True),
        "point-m2ae": lambda: hierarchical_encoder(norms=True),
    }[layout]()
    return {name: formula(name, shape) for name, shape in (shapes | DECODERS[layout]).items()}


def finetuned(layout: str) -> State:
    shapes = hierarchical_encoder(norms=False) if layout == "point-m2ae" else plain_encoder("", class_token=True)
    shapes |= {"norm.weight": (384,), "norm.bias": (384,)} | HEAD
    return {name: formula(name, shape) for name, shape in shapes.items()}


def write(path: Path, state: State, **changed: Any) -> Path:
    """Save as the published code does: accuracies beside the weights, one of them a NumPy number."""
    content: dict[str, Any] = {
        "base_model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 300,
        "metrics": {"acc": np.float64(92.9)}, "best_metrics": {"acc": torch.tensor(93.2)},
    }  # fmt: skip
    torch.save(content | changed, path)
    return path


def z_up(level: Groups) -> Groups:
    """Turn patches that were cut with +Y up; cutting turned clouds would decide ties in another way."""
    turn = torch.from_numpy(TO_Z_UP["y"].T).float()
    return Groups(level.centers @ turn, level.neighborhood @ turn, level.index)


def test_the_command_line_knows_every_layout() -> None:
    assert sorted(OFFICIAL) == sorted(LAYOUTS)


@pytest.mark.parametrize("layout", OBJECT_LAYOUTS)
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_pretrained_models_come_and_go_bit_by_bit(layout: str, wrapper: str, tmp_path: Path) -> None:
    state = pretrained(layout)
    checkpoint = write(tmp_path / "official.pth", {wrapper + name: value for name, value in state.items()})
    made = convert_checkpoint(checkpoint, tmp_path / "encoder", layout=layout, up="y")
    assert made.matched == made.expected == len(state) - len(DECODERS[layout])
    assert made.fresh == ()
    assert sum(made.left_out.values()) == len(DECODERS[layout])
    assert made.labels == "none"
    encoder, card = load_encoder_module(tmp_path / "encoder")
    assert card.method == LAYOUTS[layout].method
    assert ("cls_token" in encoder.state_dict()) == (layout == "point-pqae")
    assert export_encoder(tmp_path / "encoder", tmp_path / "back.pth", layout=layout, up="y") == made.expected
    back = torch.load(tmp_path / "back.pth", weights_only=True)["base_model"]
    assert set(back) == set(state) - set(DECODERS[layout])
    for name, value in back.items():
        assert value.numpy().tobytes() == state[name].numpy().tobytes(), name
        assert value.shape == state[name].shape, name


@pytest.mark.parametrize("layout", OBJECT_LAYOUTS)
def test_finetuned_models_are_read_and_marked_as_supervised(layout: str, tmp_path: Path) -> None:
    state = finetuned(layout)
    made = convert_checkpoint(write(tmp_path / "best.pth", state), tmp_path / "encoder", layout=layout, up="y")
    assert made.labels == "classes"
    assert made.left_out == {"cls_head_finetune": 2}
    assert made.matched == len(state) - len(HEAD)
    lacking = {"norms.0.weight", "norms.0.bias", "norms.1.weight", "norms.1.bias"}
    assert set(made.fresh) == (lacking if layout == "point-m2ae" else set())
    encoder, _ = load_encoder_module(tmp_path / "encoder")
    name = "norms.2.weight" if layout == "point-m2ae" else "norm.weight"
    assert torch.equal(encoder.state_dict()[name], state["norm.weight"])
    text = describe(made)
    assert f"{made.matched} of {made.expected} weights matched" in text
    assert "cls_head_finetune (2)" in text
    assert ("norms.0.weight" in text) == (layout == "point-m2ae")


def test_segmentation_files_keep_their_weights_under_another_name(tmp_path: Path) -> None:
    state = {name: value for name, value in finetuned("point-mae").items() if not name.startswith("cls_")}
    state |= {"convs1.weight": torch.zeros(2, 2, 1), "propagation_0.mlp_convs.0.weight": torch.zeros(2, 2, 1)}
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "seg.pth")
    made = convert_checkpoint(tmp_path / "seg.pth", tmp_path / "encoder", layout="point-mae", up="y")
    assert made.left_out == {"convs1": 1, "propagation_0": 1}
    assert made.labels == "classes"


def test_converted_point_mae_computes_what_the_official_one_does(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "mae_pretrain_full.npz", allow_pickle=False) as file:
        points, mask, expected = (torch.from_numpy(file[key]) for key in ("pts", "mask", "eval_cdl2/enc_vis"))
    checkpoint = write(tmp_path / "official.pth", pretrained("point-mae"))
    for up in ("y", "z"):
        convert_checkpoint(checkpoint, tmp_path / "encoder", layout="point-mae", up=up)
        encoder, _ = load_encoder_module(tmp_path / "encoder")
        (level,) = encoder.group(points)
        (tokens,) = encoder.eval()([z_up(level) if up == "y" else level], [mask.bool()])
        assert (tokens.tokens - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_converted_point_m2ae_computes_what_the_official_one_does(golden: Path, tmp_path: Path) -> None:
    with np.load(golden / "m2ae_cls_modelnet40_full.npz", allow_pickle=False) as file:
        points, expected = torch.from_numpy(file["pts"]), torch.from_numpy(file["norm_tokens"])
    checkpoint = write(tmp_path / "official.pth", finetuned("point-m2ae"))
    convert_checkpoint(checkpoint, tmp_path / "encoder", layout="point-m2ae", up="y")
    encoder, _ = load_encoder_module(tmp_path / "encoder")
    *_, top = encoder.eval()([z_up(level) for level in encoder.group(points)])
    assert (top.tokens - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_converted_point_pqae_computes_what_the_official_one_does(golden: Path) -> None:
    """The reference file has a small model that no builder makes: names and forms of the layout alone."""
    plan = LAYOUTS["point-pqae"]
    encoder = PointMAEEncoder(
        num_groups=32, group_size=16, dim=48, depth=2, num_heads=6, embed_hidden=(128, 256),
        drop_path=0.0, class_token=True, init="official", skip_near_origin=1e-3,
    )  # fmt: skip
    with np.load(golden / "pqae_pretrain_small.npz", allow_pickle=False) as file:
        view, expected = torch.from_numpy(file["view1"]), torch.from_numpy(file["eval/enc1"])
        names = {name: plan.official_name(name) for name in encoder.state_dict()}
        official = {name: torch.from_numpy(file[f"state/{plan.prefix}{their}"]) for name, their in names.items()}
    state = {name: from_official(value, names[name], up="y") for name, value in official.items()}
    encoder.load_state_dict(state)
    (level,) = encoder.group(view)
    (tokens,) = encoder.eval()([z_up(level)])
    assert (tokens.tokens - expected).abs().max() <= 1e-4 * expected.abs().max()
    for name, value in state.items():
        assert to_official(value, names[name], up="y").numpy().tobytes() == official[name].numpy().tobytes()


def test_own_encoders_go_out_and_come_back_as_they_were(tmp_path: Path) -> None:
    args = {"num_groups": 8, "group_size": 8, "class_token": True}
    encoder = build_encoder("point_mae_tiny", **args)
    save_encoder(
        tmp_path / "own", encoder, builder="point_mae_tiny", builder_args=args, method="distill", labels="captions",
        num_points=64, data_digest="abc", params={},
    )  # fmt: skip
    export_encoder(tmp_path / "own", tmp_path / "out.pth", layout="point-pqae", up="y")
    made = convert_checkpoint(tmp_path / "out.pth", tmp_path / "back", layout="point-pqae", up="y")
    again, card = load_encoder_module(tmp_path / "back")
    assert made.builder == "point_mae_tiny"
    assert (card.labels, card.method, card.num_points) == ("captions", "distill", 64)
    assert card.builder_args["num_groups"] == 8
    for name, value in encoder.state_dict().items():
        assert again.state_dict()[name].numpy().tobytes() == value.numpy().tobytes(), name


def test_encoders_without_class_token_cannot_become_point_pqae(tmp_path: Path) -> None:
    save_encoder(
        tmp_path / "own", build_encoder("point_mae_tiny"), builder="point_mae_tiny", builder_args={}, method="mae",
        labels="none", num_points=64, data_digest=None, params={},
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="no class token, which point-pqae needs; use --to point-mae"):
        export_encoder(tmp_path / "own", tmp_path / "out.pth", layout="point-pqae", up="y")
    with pytest.raises(CheckpointError, match="point-m2ae has point_m2ae_base or point_m2ae_tiny"):
        export_encoder(tmp_path / "own", tmp_path / "out.pth", layout="point-m2ae", up="y")
    assert not (tmp_path / "out.pth").exists()


def test_weights_that_are_missing_or_unknown_are_errors_and_nothing_is_written(tmp_path: Path) -> None:
    state = pretrained("point-mae")
    target = tmp_path / "encoder"

    def convert(changed: State, layout: str = "point-mae", **more: Any) -> Any:
        return convert_checkpoint(write(tmp_path / "c.pth", changed), target, layout=layout, up="y", **more)

    lacking = {name: value for name, value in state.items() if name != "MAE_encoder.norm.bias"}
    with pytest.raises(CheckpointError, match=r"155 of 156 weights match; missing: norm.bias; left over: none"):
        convert(lacking)
    with pytest.raises(CheckpointError, match=r"unknown: momentum_encoder.norm.bias"):
        convert(state | {"momentum_encoder.norm.bias": torch.zeros(384)})
    with pytest.raises(CheckpointError, match=r"left over: blocks.blocks.12.norm1.bias"):
        convert(state | {"MAE_encoder.blocks.blocks.12.norm1.bias": torch.zeros(384)})
    with pytest.raises(CheckpointError, match=r"other shape: norm.bias \(7,\) instead of \(384,\)"):
        convert(state | {"MAE_encoder.norm.bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match=r"0 of 159 weights belong to the encoder.*Check --from"):
        convert(state, layout="point-m2ae")
    with pytest.raises(ParamsError, match="unexpected keyword argument 'num_grups'"):
        convert(state, encoder_args={"num_grups": 3})
    assert not target.exists()
    made = convert(state | {"momentum_encoder.norm.bias": torch.zeros(384)}, leave_out=("momentum_encoder.",))
    assert made.left_out["momentum_encoder"] == 1


class Evil:
    """Pickles as a call that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    hostile = write(tmp_path / "evil.pth", pretrained("point-mae"), metrics=Evil(trap))
    with pytest.raises(CheckpointError, match=r"was not read: .*can run any code .*mkdir"):
        convert_checkpoint(hostile, tmp_path / "encoder", layout="point-mae", up="y")
    plain = tmp_path / "evil.pkl"
    plain.write_bytes(pickle.dumps({"base_model": Evil(trap)}))
    with pytest.raises(CheckpointError):
        convert_checkpoint(plain, tmp_path / "encoder", layout="point-mae", up="y")
    assert not trap.exists()
    torch.load(hostile, weights_only=False)  # the trap works where files are trusted
    assert trap.exists()


def test_wrong_files_are_named(tmp_path: Path) -> None:
    def convert(path: Path) -> None:
        convert_checkpoint(path, tmp_path / "encoder", layout="point-mae", up="y")

    with pytest.raises(CheckpointError, match="is no file"):
        convert(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("not found")
    with pytest.raises(CheckpointError, match="is no checkpoint of torch"):
        convert(tmp_path / "text.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="is no checkpoint of torch"):
        convert(tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a dictionary"):
        convert(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(CheckpointError, match=r"holds no weights.*got the keys epoch"):
        convert(tmp_path / "epoch.pth")
    good = write(tmp_path / "cut.pth", {"mask_token": torch.zeros(1, 1, 384)}).read_bytes()
    (tmp_path / "cut.pth").write_bytes(good[: len(good) // 2])
    with pytest.raises(CheckpointError, match="is no checkpoint of torch"):
        convert(tmp_path / "cut.pth")


def test_the_command_says_what_matched(tmp_path: Path) -> None:
    save_encoder(
        tmp_path / "own", build_encoder("point_mae_tiny"), builder="point_mae_tiny", builder_args={}, method="mae",
        labels="none", num_points=64, data_digest=None, params={},
    )  # fmt: skip
    run = CliRunner().invoke
    out = run(cli, ["convert", str(tmp_path / "own"), "--to", "point-mae", "--output", str(tmp_path / "o.pth")])
    assert (out.exit_code, out.output) == (0, f"{tmp_path / 'o.pth'}: 90 weights, all of the encoder\n")
    back = run(cli, ["convert", str(tmp_path / "o.pth"), "--from", "point-mae", "--output", str(tmp_path / "back")])
    assert "90 of 90 weights matched\nlabels: none" in back.output
    neither = run(cli, ["convert", str(tmp_path / "own"), "--output", str(tmp_path / "x")])
    assert neither.exit_code == 2
    assert "give either --from or --to" in neither.output
    wrong = ["convert", "x", "--from", "point-mae", "--output", "y", "--encoder-args", "[3]"]
    assert "expected a JSON object, got [3]" in run(cli, wrong).output
