"""Tiny BLIP-2 checkpoints of the real classes, written in the format that people download."""

from pathlib import Path
from typing import Any, Literal

import torch

from pointloom._compat import ensure_torchvision

NUM_QUERIES = 4
CORPUS = [
    "a red chair with four legs",
    "a blue table made of wood",
    "a photo of a small lamp",
    "the picture shows a tall green tree beside a house",
]


def write_blip2_folder(
    folder: Path, *, seed: int = 0, language: Literal["opt", "t5"] = "opt", image_token: bool = True
) -> Any:
    """Write a folder as transformers saves BLIP-2 and return the model in it.

    Args:
        folder: To write.
        seed: Of the weights, which are drawn large enough for the picture to matter.
        language: Kind of the language model.
        image_token: False writes a checkpoint as it was before image tokens: neither model nor processor know them.
    """
    ensure_torchvision()
    import transformers

    torch.manual_seed(seed)
    tokenizer = _tokenizer(image_token=image_token)
    common = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    text: Any
    if language == "opt":
        size = {"hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64, "word_embed_proj_dim": 32}
        text = transformers.OPTConfig(**size, num_attention_heads=4, max_position_embeddings=128, **common)
    else:
        size = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        text = transformers.T5Config(**size, **common, decoder_start_token_id=1)
    config = transformers.Blip2Config(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "image_size": 32, "patch_size": 8,
        },
        qformer_config={
            "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "cross_attention_frequency": 2, "vocab_size": 32,
        },
        text_config=text.to_dict(),
        num_query_tokens=NUM_QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>") if image_token else None,
    )  # fmt: skip
    model = transformers.Blip2ForConditionalGeneration(config).eval()
    for name, value in model.named_parameters():
        if value.ndim > 1 or name == "query_tokens":
            torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    size32 = {"height": 32, "width": 32}
    images = transformers.BlipImageProcessorPil(size=size32)
    processor = transformers.Blip2Processor(images, tokenizer, num_query_tokens=NUM_QUERIES)
    if not image_token:
        processor.num_query_tokens = None
        images.save_pretrained(folder)
        _tokenizer(image_token=False).save_pretrained(folder)
    else:
        processor.save_pretrained(folder)
    return model


def _tokenizer(*, image_token: bool) -> Any:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    raw.post_processor = tokenizers.processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", raw.token_to_id("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    if image_token:
        tokenizer.add_tokens([tokenizers.AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    return tokenizer
