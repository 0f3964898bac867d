"""A tiny random model whose tokenizer has whole words, those that a judge of texts is asked with and about."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from probes.model.load import from_memory
from probes.model.loaded import LoadedModel
from probes.progress import Progress
from probes.saes.judge import DEMONSTRATIONS, REFERENCE
from probes.saes.judge_check import known_texts
from tests import tiny

__all__ = ["loaded", "module", "save", "tokenizer"]

_TEMPLATE = "Text: \nTopic: ? Yes No yes no\n\n"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word (with the space before it), a sign or a line break; what else there is in a text is unknown."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="never"),
            pre_tokenizers.Split(Regex("\n|[?.,:;'0-9-]"), behavior="isolated"),
        ]
    )
    texts = [_TEMPLATE, *(f" {text} {label}" for label, text in known_texts()), *(f" {word}" for word in REFERENCE)]
    texts += [f" {one} {other}" for _, one, _, other, _ in DEMONSTRATIONS]
    pieces = dict.fromkeys(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    vocab = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *pieces])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = split
    inner.decoder = decoders.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def module(name: str = "llama", **changes: Any) -> Any:
    return tiny.module(name, vocab_size=len(tokenizer()) + 3, **{"max_position_embeddings": 1024} | changes)


def loaded(name: str = "llama", **changes: Any) -> LoadedModel:
    return from_memory(module(name, **changes), tokenizer(), f"tiny-words-{name}", None, Progress())


def save(folder: Path, name: str = "llama") -> Path:
    """A model folder as a person would have it on disk."""
    module(name).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
