"""The text an SAE is measured on: the built-in one or a person's own, cut, named, and in batches of equal length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from cache.keys import digest
from probes.model.loaded import LoadedModel
from probes.prompts import bank
from probes.saes.sequences import FileText, TextSequence, cut_documents

__all__ = ["BUILTIN", "TOKENS", "Batch", "batches", "builtin_text", "corpus_name", "first_of"]

BUILTIN = "built-in texts"
TOKENS = 20_000
_BATCH = 4


def builtin_text(model: LoadedModel, n_tokens: int = TOKENS) -> tuple[TextSequence, ...]:
    """The texts of the mean bank, which no SAE was trained on, 128 tokens at a time; about 7,000 tokens."""
    texts = [FileText(one.source.split(",")[0].removeprefix("own: "), one.id, one.text) for one in bank()]
    return cut_documents(texts, model, n_tokens=n_tokens)


def corpus_name(name: str, sequences: Sequence[TextSequence]) -> str:
    """How measurements on these sequences are told apart: ``name`` and what was really read."""
    read = digest([list(one.ids) for one in sequences])[:8]
    return f"{name}, {sum(len(one.ids) for one in sequences):,} tokens, {read}"


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of equal length, and the source of each."""

    ids: Int64[Tensor, "batch tokens"]
    sources: tuple[str, ...]


def batches(sequences: Sequence[TextSequence]) -> Iterator[Batch]:
    """Neighbours of equal length together, so that nothing is padded; shuffled, so that any first few are a fair sample."""
    found = []
    for _, alike in itertools.groupby(sorted(sequences, key=lambda one: -len(one.ids)), key=lambda one: len(one.ids)):
        equal = list(alike)
        for first in range(0, len(equal), _BATCH):
            part = equal[first : first + _BATCH]
            found.append(Batch(torch.tensor([one.ids for one in part]), tuple(one.source for one in part)))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    yield from (found[at] for at in order)


def first_of(found: Sequence[Batch], tokens: int) -> int:
    """How many batches it takes to have so many tokens; all where there are fewer."""
    total = 0
    for count, batch in enumerate(found):
        if total >= tokens:
            return count
        total += batch.ids.numel()
    return len(found)
