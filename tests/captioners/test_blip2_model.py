import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pointloom.captioners.blip2_model import Blip2Model, load_blip2
from pointloom.errors import BackendError, CheckpointError
from tests.captioners.stores import picture
from tests.captioners.tiny_blip2 import NUM_QUERIES, write_blip2_folder

CPU = torch.device("cpu")
VIEWS = np.stack([picture(i) for i in range(3)])
GREEDY = {"prompt": "a photo of", "samples": 1, "top_p": 1e-6, "max_new_tokens": 6, "seed": 0}
RANDOM = {"prompt": "a photo of", "samples": 3, "top_p": 0.9, "max_new_tokens": 6}


@pytest.fixture(scope="module", params=["opt", "t5"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(language: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / f"blip2-{language}"
    write_blip2_folder(path, language=language)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Blip2Model:
    return load(folder)


def load(folder: Path) -> Blip2Model:
    return load_blip2(str(folder), device=CPU, precision="fp16")


def greedy_reference(folder: Path, view: np.ndarray, *, prompt: str, steps: int) -> str:
    """Write the likeliest sentence word by word with plain forward passes."""
    import transformers
    from PIL import Image

    model = transformers.Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.Blip2Processor.from_pretrained(folder, backend="pil")
    inputs = processor(images=Image.fromarray(view), text=prompt, return_tensors="pt")
    image, written = model.config.image_token_id, []
    for _ in range(steps):
        step = dict(inputs)
        if model.config.use_decoder_only_language_model:
            step["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([written], dtype=torch.long)], 1)
            step["attention_mask"] = torch.ones_like(step["input_ids"])
        else:
            step["decoder_input_ids"] = torch.tensor([[model.config.text_config.decoder_start_token_id, *written]])
        with torch.no_grad():
            logits = model(**step).logits[0, -1]
        logits[image] = -torch.inf
        written.append(int(logits.argmax()))
        if written[-1] == processor.tokenizer.eos_token_id:
            break
    return str(processor.tokenizer.decode(written, skip_special_tokens=True))


@pytest.mark.parametrize("prompt", ["a photo of", ""])
def test_sentences_are_what_the_model_writes_about_each_picture_without_the_prompt(
    model: Blip2Model, folder: Path, prompt: str
) -> None:
    expected = [greedy_reference(folder, view, prompt=prompt, steps=6) for view in VIEWS]
    found = model.sample(VIEWS, **{**GREEDY, "prompt": prompt})
    assert found == [[text] for text in expected]
    assert len(set(expected)) == len(expected), "the reference itself must depend on the picture"


def test_rows_of_a_batch_belong_to_their_pictures(model: Blip2Model) -> None:
    alone = [model.sample(view[None], **{**GREEDY, "samples": 2})[0] for view in VIEWS]
    assert model.sample(VIEWS, **{**GREEDY, "samples": 2}) == alone
    assert model.sample(VIEWS[::-1].copy(), **{**GREEDY, "samples": 2}) == alone[::-1]


def test_sampling_repeats_under_a_seed_and_leaves_other_randomness_alone(model: Blip2Model) -> None:
    before = torch.random.get_rng_state()
    first = model.sample(VIEWS, **RANDOM, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [len(texts) for texts in first] == [3, 3, 3]
    assert model.sample(VIEWS, **RANDOM, seed=1) == first
    assert model.sample(VIEWS, **RANDOM, seed=2) != first


def test_a_prompt_without_image_tokens_is_an_error_not_a_fluent_sentence(folder: Path) -> None:
    model = load(folder)
    model._processor.num_query_tokens = None
    with pytest.raises(CheckpointError, match=rf"holds \[0\] image tokens .* needs {NUM_QUERIES}: it would not see"):
        model.sample(VIEWS, **GREEDY)


def test_old_checkpoints_are_repaired_so_that_the_picture_is_seen(language: Any, tmp_path: Path) -> None:
    write_blip2_folder(tmp_path / "old", language=language, image_token=False)
    model = load(tmp_path / "old")
    assert len({text for texts in model.sample(VIEWS, **GREEDY) for text in texts}) > 1
    assert load(tmp_path / "old").weights_sha256 == model.weights_sha256


def test_a_processor_that_counts_other_query_tokens_is_corrected(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path / "copy")
    edit(copy / "processor_config.json", num_query_tokens=NUM_QUERIES + 3)
    assert load(copy).sample(VIEWS, **GREEDY) == load(folder).sample(VIEWS, **GREEDY)


def test_contradicting_image_tokens_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path / "copy")
    edit(copy / "config.json", image_token_index=7)
    with pytest.raises(CheckpointError, match=r"takes token 7 for the picture.*files are from different versions"):
        load(copy)


@pytest.mark.parametrize("dropped", ["query_tokens", "language_projection.weight"])
def test_weights_that_would_be_random_are_refused(folder: Path, tmp_path: Path, dropped: str) -> None:
    copy = copied(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights[dropped]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"1 weights are missing .* would be random, the first is {dropped}"):
        load(copy)


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights["query_tokens"] = torch.zeros(1, NUM_QUERIES + 1, 32)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 weights are missing or have another shape .* the first is query_tokens"
    ):
        load(copy)


def test_a_missing_folder_says_what_to_download_how_large_it_is_and_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTLOOM_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        load_blip2("blip2-opt-2.7b", device=CPU, precision="fp16")
    for part in (
        "captioner blip2", "huggingface.co/Salesforce/blip2-opt-2.7b", "15 GB", "non-commercial",
        "blip2-flan-t5-xl", "Apache-2.0", str(tmp_path / "blip2-opt-2.7b"), "POINTLOOM_MODELS",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_folders_of_other_things_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no BLIP-2 checkpoint .config.json says nothing, expected blip-2"):
        load(tmp_path / "empty")
    copy = copied(folder, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no \.safetensors file; pickled weights"):
        load(copy)
    edit(copy / "config.json", model_type="opt")
    with pytest.raises(CheckpointError, match="says opt, expected blip-2"):
        load(copy)


def test_a_damaged_weight_file_is_a_message_with_its_folder(folder: Path, tmp_path: Path) -> None:
    copy = copied(folder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=f"{copy}: cannot be loaded as BLIP-2"):
        load(copy)


def test_too_little_memory_names_the_batch_size(model: Blip2Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model._model, "generate", fail)
    with pytest.raises(BackendError, match=r"batch_size 3 views x 3 samples; lower caption.batch_size"):
        model.sample(VIEWS, **RANDOM, seed=0)


def test_missing_transformers_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match=r'needs transformers; .*pip install "pointloom\[multimodal\]"'):
        load(folder)


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
