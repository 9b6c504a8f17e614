from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointloom.errors import CheckpointError
from pointloom.teachers.clip import Clip, load_clip
from tests.teachers.tiny import clip_config, clip_model, write_clip_folder

CPU = torch.device("cpu")


def views(num: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (num, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_clip_folder(path)
    return path


def reference(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Features through the library's own evaluation transform, one picture at a time."""
    import open_clip

    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=32, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)), is_train=False
    )
    with torch.inference_mode():
        return np.concatenate(
            [model.encode_image(preprocess(Image.fromarray(image))[None]).numpy() for image in images]
        )


def test_a_folder_gives_the_features_of_the_saved_model(folder: Path) -> None:
    import open_clip

    clip, model = load_clip(str(folder), device=CPU, batch_size=3), clip_model()
    images = views(5, 32)
    np.testing.assert_allclose(clip.encode_image(images), reference(model, images), atol=1e-5)
    texts = ["a chair", "a very small red car", "", "two lamps"]
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts)).numpy()
    np.testing.assert_allclose(clip.encode_text(texts), expected, atol=1e-5)
    assert clip.dim == 32


def test_larger_views_are_resized_as_the_library_resizes_them(folder: Path) -> None:
    smooth = np.asarray(Image.fromarray(views(1, 6)[0]).resize((96, 96), Image.Resampling.BICUBIC))[None]
    ours = load_clip(str(folder), device=CPU).encode_image(smooth)
    theirs = reference(clip_model(), smooth)
    cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.9999


def test_nothing_to_encode_gives_no_rows(folder: Path) -> None:
    clip = load_clip(str(folder), device=CPU)
    assert clip.encode_image(views(0, 32)).shape == (0, 32)
    assert clip.encode_text([]).shape == (0, 32)


def test_words_are_what_the_text_tower_makes_of_every_token_brought_into_the_common_space(folder: Path) -> None:
    import open_clip

    texts = ["a chair", "the small red car! left of a lamp", ""]
    clip, model, tokenizer = (
        load_clip(str(folder), device=CPU, batch_size=2),
        clip_model(),
        open_clip.get_tokenizer("ViT-B-32"),
    )
    word, valid, sentence = clip.encode_words(texts)
    assert valid.sum(1).tolist() == [len(tokenizer.encode(text)) + 2 for text in texts]  # start and end
    assert valid.shape[1] == valid[1].sum()
    with torch.inference_mode():
        x = model.token_embedding(tokenizer(texts)) + model.positional_embedding
        expected = (model.ln_final(model.transformer(x, attn_mask=model.attn_mask)) @ model.text_projection).numpy()
    np.testing.assert_allclose(word, expected[:, : valid.shape[1]], atol=1e-5)
    np.testing.assert_allclose(sentence, clip.encode_text(texts), atol=1e-6)
    for row, end in enumerate(valid.sum(1) - 1):
        np.testing.assert_allclose(word[row, end], sentence[row], atol=1e-5)
    assert [found.shape for found in clip.encode_words([])] == [(0, 1, 32), (0, 1), (0, 32)]


def test_texts_that_are_cut_off_are_counted(folder: Path) -> None:
    clip = load_clip(str(folder), device=CPU)
    fits, too_long = " ".join(["chair"] * 75), " ".join(["chair"] * 76)
    assert clip.num_truncated([fits, too_long, "a chair", ""]) == 1
    assert clip.num_truncated([]) == 0


def test_a_weight_file_needs_the_name_of_its_architecture(tmp_path: Path) -> None:
    import json

    import open_clip

    file = tmp_path / "weights.pt"
    torch.save(clip_model(seed=3).state_dict(), file)
    (tmp_path / "tiny-test.json").write_text(json.dumps(clip_config()))
    open_clip.add_model_config(tmp_path / "tiny-test.json")
    loaded = load_clip(str(file), architecture="tiny-test", device=CPU)
    images = views(2, 32)
    with torch.inference_mode():
        pixel = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.0).float()
        shift = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
        scale = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
        expected = clip_model(seed=3).encode_image((pixel - shift) / scale).numpy()
    np.testing.assert_allclose(loaded.encode_image(images), expected, atol=1e-5)
    with pytest.raises(CheckpointError, match="does not say which model it belongs to; set architecture"):
        load_clip(str(file), device=CPU)
    with pytest.raises(CheckpointError, match="cannot be loaded into ViT-B-32"):
        load_clip(str(file), architecture="ViT-B-32", device=CPU)


def test_openai_weights_are_never_run_with_the_wrong_activation(tmp_path: Path) -> None:
    import json

    import open_clip

    (tmp_path / "tiny-plain.json").write_text(json.dumps(clip_config()))
    open_clip.add_model_config(tmp_path / "tiny-plain.json")
    file = tmp_path / "vit.openai.pt"
    torch.save(clip_model(quick_gelu=True).state_dict(), file)
    with pytest.raises(CheckpointError, match="set quick_gelu to true"):
        load_clip(str(file), architecture="tiny-plain", device=CPU)
    right = load_clip(str(file), architecture="tiny-plain", quick_gelu=True, device=CPU)
    wrong = load_clip(str(file), architecture="tiny-plain", quick_gelu=False, device=CPU)
    images = views(2, 32)
    with torch.inference_mode():
        expected = clip_model(quick_gelu=True).encode_text(open_clip.get_tokenizer("ViT-B-32")(["a chair"])).numpy()
    np.testing.assert_allclose(right.encode_text(["a chair"]), expected, atol=1e-5)
    assert np.abs(right.encode_image(images) - wrong.encode_image(images)).max() > 1e-3
    assert right.identity != wrong.identity


@pytest.mark.parametrize("scripted", [True, False])
def test_openais_own_archive_is_recognised(tmp_path: Path, scripted: bool) -> None:
    import open_clip

    wide = {"text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}}
    vision = {"vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8}}
    torch.manual_seed(0)
    model = open_clip.model.CLIP(embed_dim=32, **wide, **vision, quick_gelu=True).eval()
    file = tmp_path / "ViT-tiny.pt"
    if scripted:
        holder = torch.nn.Module()
        for name, value in model.state_dict().items():
            inner = holder
            *parents, last = name.split(".")
            for parent in parents:
                if not hasattr(inner, parent):
                    inner.add_module(parent, torch.nn.Module())
                inner = getattr(inner, parent)
            inner.register_buffer(last, value)
        torch.jit.script(holder).save(str(file))
    else:
        extra = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
        torch.save({**model.state_dict(), **{key: torch.tensor(value) for key, value in extra.items()}}, file)
    loaded = load_clip(str(file), device=CPU)
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a chair"])).numpy()
    np.testing.assert_allclose(loaded.encode_text(["a chair"]), expected, atol=5e-3)  # the archive is half precision


def test_random_weights_are_refused(tmp_path: Path) -> None:
    write_clip_folder(tmp_path / "tiny")
    (tmp_path / "tiny/open_clip_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"tiny: the weights cannot be loaded .*could not be loaded"):
        load_clip(str(tmp_path / "tiny"), device=CPU)
    (tmp_path / "tiny/open_clip_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json is missing"):
        load_clip(str(tmp_path / "tiny"), device=CPU)


def test_missing_weights_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTLOOM_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        load_clip("local-dir:CLIP-ViT-L-14-laion2B-s32B-b82K", device=CPU)
    message = str(error.value)
    place = tmp_path / "CLIP-ViT-L-14-laion2B-s32B-b82K"
    for part in (f"no weights at {place}", "huggingface.co/laion/CLIP-ViT-L-14", "1.71 GB", "licence MIT"):
        assert part in message
    assert f"--local-dir {place}" in message
    with pytest.raises(CheckpointError, match=r"no weights at .*mine: put them there; sources of known weights: CLIP"):
        load_clip("mine", device=CPU)


def test_other_weights_are_another_identity(tmp_path: Path, folder: Path) -> None:
    write_clip_folder(tmp_path / "other", seed=1)
    write_clip_folder(tmp_path / "copy", seed=0)

    def identity(path: Path) -> object:
        clip: Clip = load_clip(str(path), device=CPU)
        return clip.identity

    assert identity(folder) == identity(tmp_path / "copy")
    assert identity(folder) != identity(tmp_path / "other")
