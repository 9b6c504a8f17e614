"""BLIP-2 through transformers: load a checkpoint from this machine, and sample sentences about pictures.

Li et al., 2023. A BLIP-2 whose prompt lacks the image tokens writes fluent sentences about nothing, without an error:
it never sees the picture. Here that is repaired where it is safe, and an error everywhere else.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError
from torch import Tensor

from pointloom._compat import ensure_torchvision
from pointloom.errors import BackendError, CheckpointError
from pointloom.weights import find_weights, module_sha256

if TYPE_CHECKING:
    import types

logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp16", "fp32"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Blip2Model:
    """A frozen BLIP-2 with its processor.

    Attributes:
        name: Of the model, for people.
        weights_sha256: Over all weights as they were loaded.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, weights_sha256: str, device: torch.device) -> None:
        self.weights_sha256 = weights_sha256
        self.name = f"{name} ({weights_sha256[:12]})"
        self._model = model.to(device).eval().requires_grad_(False)
        self._processor = processor
        self._device = device

    def sample(
        self,
        views: UInt8[np.ndarray, "b h w 3"],
        *,
        prompt: str,
        samples: int,
        top_p: float,
        max_new_tokens: int,
        seed: int,
    ) -> list[list[str]]:
        """Return ``samples`` sentences per picture, by nucleus sampling.

        Args:
            views: RGB pictures without transparency.
            prompt: Text that the model continues; the sentences do not repeat it.
            samples: Sentences per picture.
            top_p: The next word is drawn from the likeliest ones that hold this much of the probability.
            max_new_tokens: Longest sentence, in tokens of the language model.
            seed: Equal seeds and equal batches give equal sentences on one device.

        Raises:
            BackendError: The GPU's memory is too small for this batch.
            CheckpointError: The prompt lacks the tokens that stand for the picture.
        """
        inputs = self._processor(images=list(views), text=[prompt] * len(views), padding=True, return_tensors="pt")
        self._check_image_tokens(inputs["input_ids"])
        inputs = inputs.to(self._device, self._model.dtype)
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with torch.inference_mode(), torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                made = self._model.generate(
                    **inputs,
                    do_sample=True,
                    top_p=top_p,
                    top_k=0,
                    num_return_sequences=samples,
                    max_new_tokens=max_new_tokens,
                    suppress_tokens=[self._model.config.image_token_id],
                )
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"captioner blip2: out of GPU memory with batch_size {len(views)} views x {samples} samples; "
                "lower caption.batch_size (or samples, or max_new_tokens), or use precision bf16 or fp16"
            ) from error
        new = _without_prompt(made, inputs["input_ids"])
        texts = self._processor.tokenizer.batch_decode(new.cpu(), skip_special_tokens=True)
        return [texts[start : start + samples] for start in range(0, len(texts), samples)]

    def _check_image_tokens(self, input_ids: Int64[Tensor, "b t"]) -> None:
        config = self._model.config
        found = (input_ids == config.image_token_id).sum(1)
        if bool((found != config.num_query_tokens).any()):
            raise CheckpointError(
                f"captioner blip2: the prompt holds {sorted(set(found.tolist()))} image tokens (id "
                f"{config.image_token_id}), the model needs {config.num_query_tokens}: it would not see the picture. "
                "The processor's files do not fit the model; download the whole repository of the model again"
            )


def _without_prompt(made: Int64[Tensor, "s t"], input_ids: Int64[Tensor, "b p"]) -> Int64[Tensor, "s n"]:
    """Cut the prompt off: language models without an encoder (OPT) repeat it, those with one (T5) do not."""
    prompt = input_ids.repeat_interleave(len(made) // len(input_ids), dim=0)
    length = prompt.shape[1]
    return made[:, length:] if made.shape[1] >= length and torch.equal(made[:, :length], prompt) else made


def load_blip2(weights: str, *, device: torch.device, precision: Precision) -> Blip2Model:
    """Load a BLIP-2 checkpoint from this machine; nothing is downloaded and nothing is left at random.

    Args:
        weights: Folder as downloaded, relative to the folder of models, for example ``blip2-opt-2.7b``.
        device: Where to compute.
        precision: Of the weights; a CPU always computes in fp32.

    Raises:
        BackendError: transformers is not installed.
        CheckpointError: There are no weights, they do not fit, or the processor does not fit them.
    """
    path = find_weights(weights, needed_by="captioner blip2")
    transformers = _transformers()
    _check_folder(path)
    dtype = DTYPES[precision] if device.type == "cuda" else torch.float32
    try:
        model, loading = transformers.Blip2ForConditionalGeneration.from_pretrained(
            path,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are an error below, with a name
            output_loading_info=True,
        )
        processor = transformers.Blip2Processor.from_pretrained(path, local_files_only=True, backend="pil")
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be loaded as BLIP-2: {error}") from error
    missing = sorted({*loading["missing_keys"], *(str(key[0]) for key in loading["mismatched_keys"])})
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} weights are missing or have another shape and would be random, the first is "
            f"{missing[0]}; download the whole repository of the model again"
        )
    weights_sha256 = module_sha256(model)
    _fit_processor(model, processor, path)
    return Blip2Model(model, processor, name=path.name, weights_sha256=weights_sha256, device=device)


def _transformers() -> "types.ModuleType":
    try:
        ensure_torchvision()
        import transformers
    except ModuleNotFoundError as error:
        raise BackendError(
            f'captioner blip2 needs {error.name}; install it with `pip install "pointloom[multimodal]"`'
        ) from error
    return transformers


def _check_folder(path: Path) -> None:
    config = path / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    if kind != "blip-2":
        raise CheckpointError(
            f"{path}: this is no BLIP-2 checkpoint (config.json says {kind or 'nothing'}, expected blip-2)"
        )
    if not list(path.glob("*.safetensors")):
        raise CheckpointError(f"{path}: there is no .safetensors file; pickled weights (.bin) are not read")


def _fit_processor(model: Any, processor: Any, path: Path) -> None:
    """Complete the files of old checkpoints, which know nothing of image tokens; without them the picture is not seen.

    The embedding of the image token itself is never used, because the picture's features take its place; so it may be
    new. What is there and contradicts itself is not repaired.
    """
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    processor.num_query_tokens = model.config.num_query_tokens
    token = tokenizer.convert_tokens_to_ids(str(processor.image_token))
    if model.config.image_token_id is None:
        logger.info("%s: an old checkpoint without an image token; %s gets id %d", path, processor.image_token, token)
        model.config.image_token_index = token
    if model.config.image_token_id != token:
        raise CheckpointError(
            f"{path}: the model takes token {model.config.image_token_id} for the picture, its tokenizer has "
            f"{processor.image_token} as {token}; the files are from different versions, download all of them again"
        )
    if token >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
