"""Tiny random models of several architectures with a byte-level tokenizer: real code paths at no cost."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from probes.model.load import from_memory
from probes.model.loaded import LoadedModel
from probes.progress import Progress

__all__ = ["ARCHITECTURES", "REFUSED", "TEXT", "config", "loaded", "module", "save", "tokenizer"]

TEXT = "The river that runs past the old mill has changed its bed three times; nobody planned it, and nobody paid."
VOCAB = 260
_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MHA = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _LLAMA),
    "qwen2": ("Qwen2Config", {**_LLAMA, "tie_word_embeddings": True}),
    "neox": ("GPTNeoXConfig", _MHA),
    "phi": ("PhiConfig", _MHA),
    "gpt2": ("GPT2Config", _GPT2),
    "gemma2": ("Gemma2Config", {**_LLAMA, "head_dim": 8, "sliding_window": 16}),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "gptj": ("GPTJConfig", {**_GPT2, "rotary_dim": 4}),
    "bloom": ("BloomConfig", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


def config(name: str, **changes: Any) -> Any:
    kind, settings = {**ARCHITECTURES, **REFUSED}[name]
    return getattr(transformers, kind)(**{**settings, **changes})


def module(name: str, **changes: Any) -> Any:
    """A random model, its weights spread out so that attention is not uniform."""
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config(name, **changes)).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return hf


def tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """One token for each byte, after four specials."""
    specials = ["<pad>", "<s>", "</s>", "<mark>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*specials, *letters])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<mark>"],
    )


def loaded(name: str, bos: bool = True, **changes: Any) -> LoadedModel:
    return from_memory(module(name, **changes), tokenizer(bos), f"tiny-{name}", None, Progress())


def save(folder: Path, name: str = "llama", **changes: Any) -> Path:
    """A model folder as a person would have it on disk."""
    module(name, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
