from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pointloom.errors import CheckpointError
from pointloom.teachers.dino import load_dino
from tests.teachers.tiny import write_dino_folder

CPU = torch.device("cpu")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def views(num: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num, 224, 224, 3), dtype=np.uint8)


@pytest.mark.parametrize("registers", [False, True])
def test_features_are_the_class_token_of_the_saved_model(tmp_path: Path, registers: bool) -> None:
    model = write_dino_folder(tmp_path / "tiny", registers=registers)
    images = views(3)
    pixel = torch.from_numpy(((images / 255 - MEAN) / STD).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        expected = model(pixel_values=pixel).pooler_output.numpy()
    dino = load_dino(str(tmp_path / "tiny"), device=CPU, batch_size=2)
    np.testing.assert_allclose(dino.encode_image(images), expected, atol=1e-4)
    assert dino.encode_image(images[:0]).shape == (0, dino.dim) == (0, 48)


def test_the_whole_view_is_seen_not_its_centre(tmp_path: Path) -> None:
    write_dino_folder(tmp_path / "tiny")
    dino = load_dino(str(tmp_path / "tiny"), device=CPU)
    plain = np.full((1, 256, 256, 3), 255, dtype=np.uint8)
    framed = plain.copy()
    framed[:, :12] = 0
    assert np.abs(dino.encode_image(plain) - dino.encode_image(framed)).max() > 1e-3


def test_other_weights_are_another_identity(tmp_path: Path) -> None:
    write_dino_folder(tmp_path / "a", seed=0)
    write_dino_folder(tmp_path / "b", seed=1)
    first, second = (load_dino(str(tmp_path / name), device=CPU) for name in "ab")
    assert first.identity != second.identity
    assert first.identity == load_dino(str(tmp_path / "a"), device=CPU).identity


def test_incomplete_weights_are_refused_instead_of_made_up(tmp_path: Path) -> None:
    write_dino_folder(tmp_path / "tiny")
    file = tmp_path / "tiny/model.safetensors"
    weights = load_file(file)
    weights.pop("encoder.layer.1.mlp.fc1.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of the model's tensors \(encoder.layer.1.mlp.fc1.weight"):
        load_dino(str(tmp_path / "tiny"), device=CPU)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"no complete model \(config.json and model.safetensors\) here"):
        load_dino(str(tmp_path / "tiny"), device=CPU)


def test_a_missing_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLOOM_MODELS", str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"huggingface.co/facebook/dinov2-base \(about 0.35 GB, licence Apache-2.0"
    ) as error:
        load_dino("dinov2-base", device=CPU)
    command = f"`hf download facebook/dinov2-base --exclude '*.bin' --local-dir {tmp_path / 'dinov2-base'}`"
    assert command in str(error.value), "not twice the size, for formats that are not read"


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    write_dino_folder(tmp_path / "tiny")
    config = (tmp_path / "tiny/config.json").read_text().replace('"dinov2"', '"vit"')
    (tmp_path / "tiny/config.json").write_text(config)
    with pytest.raises(CheckpointError, match="a model of type vit, expected dinov2"):
        load_dino(str(tmp_path / "tiny"), device=CPU)
