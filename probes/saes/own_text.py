"""Own text as chunks to train an SAE on, and others to measure it on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from probes.errors import BadRequest
from probes.saes.activations import CONTEXT, Chunks
from probes.saes.own_request import MIN_CHUNKS, STATES_A_CHUNK, Text

__all__ = ["OwnChunks", "Split", "chunk_texts", "count_tokens"]

Split = Literal["documents", "last tenth"]
_HELD_OUT, _HELD_OUT_MOST = 0.1, 0.2
_MAX_HELD_OUT_CHUNKS = 512
_LONGEST = 16  # characters a token holds on average at most; what lies beyond the budget is not tokenised
_COUNTED = 1_000_000  # characters that are tokenised to say how many tokens there are; more are extrapolated


@dataclass(frozen=True, eq=False)
class OwnChunks:
    """Chunks to train on and held out, and how they were told apart: by document, or the last tenth of the only one."""

    train: Chunks
    held_out: Chunks
    split: Split


def chunk_texts(texts: Sequence[Text], tokenizer: Any, bos_id: int | None, tokens: int, seed: int) -> OwnChunks:
    """Chunks of equal length from own text, at most ``tokens`` tokens to train on.

    Documents follow each other in random order, joined by an empty line, so that short ones are not lost. About a tenth
    of the text, in whole documents, is held out; where that leaves no chunk, as with a single document, it is the last
    tenth of every document. Typed special tokens are text.

    Raises:
        BadRequest: there is too little text, and how much there must be.
    """
    order = [*texts]
    random.Random(seed).shuffle(order)
    held = _held_out(order)
    most = max(1, tokens // STATES_A_CHUNK)
    cut = _Cutter(tokenizer, bos_id)
    train = cut([one for one in order if one.name not in held], most)
    held_out = cut([one for one in order if one.name in held], _MAX_HELD_OUT_CHUNKS)
    split: Split = "documents"
    if not len(held_out.ids) or len(train.ids) < MIN_CHUNKS:
        split = "last tenth"
        ends = [int(len(one.text) * (1 - _HELD_OUT)) for one in order]
        train = cut([Text(one.name, one.text[:end]) for one, end in zip(order, ends, strict=True)], most)
        rest = [Text(one.name, one.text[end:]) for one, end in zip(order, ends, strict=True)]
        held_out = cut(rest, _MAX_HELD_OUT_CHUNKS)
    if len(train.ids) < MIN_CHUNKS or not len(held_out.ids):
        found = (len(train.ids) + len(held_out.ids)) * STATES_A_CHUNK
        need = (MIN_CHUNKS + 2) * STATES_A_CHUNK
        raise BadRequest(
            f"This text fills {len(train.ids)} chunks of {CONTEXT} tokens to train on and {len(held_out.ids)} to measure on "
            f"(about {found:,} tokens); there must be at least {MIN_CHUNKS} and 1, so give about {need:,} tokens or more."
        )
    fair = max(2, len(train.ids) // 4)
    return OwnChunks(train, held_out.first(fair), split)


def count_tokens(texts: Sequence[Text], tokenizer: Any) -> tuple[int, bool]:
    """Tokens of all texts, and whether they were counted to the last: a long text is extrapolated from its beginning."""
    total, counted, room = 0, 0, _COUNTED
    for one in texts:
        part = one.text[:room]
        total += len(_ids(part, tokenizer))
        counted += len(part)
        room -= len(part)
        if room <= 0:
            break
    characters = sum(len(one.text) for one in texts)
    return (total, True) if counted == characters else (round(total * characters / counted), False)


class _Cutter:
    """Cuts documents into chunks, each beginning with BOS where the model has one."""

    def __init__(self, tokenizer: Any, bos_id: int | None) -> None:
        self._tokenizer = tokenizer
        self._start = [] if bos_id is None else [bos_id]
        self._between = _ids("\n\n", tokenizer)

    def __call__(self, documents: Sequence[Text], most: int) -> Chunks:
        body = CONTEXT - len(self._start)
        rows: list[list[int]] = []
        names: list[str] = []
        stream: list[int] = []
        for one in documents:
            if len(rows) >= most:
                break
            stream += self._between if stream else []
            needed = (most - len(rows)) * body * _LONGEST
            stream += _ids(one.text[:needed], self._tokenizer)
            whole = len(stream) // body
            rows += [self._start + stream[i * body : (i + 1) * body] for i in range(whole)]
            names += [one.name] * whole
            stream = stream[whole * body :]
        ids = torch.tensor(rows[:most], dtype=torch.long).reshape(-1, CONTEXT)
        return Chunks(ids, tuple(names[:most]))


def _held_out(order: Sequence[Text]) -> frozenset[str]:
    """Names of whole documents that make about a tenth of the text; none of a single one."""
    if len(order) < 2:
        return frozenset()
    total = sum(len(one.text) for one in order)
    held: list[Text] = []
    for one in order:
        so_far = sum(len(other.text) for other in held)
        if so_far < _HELD_OUT * total and so_far + len(one.text) <= _HELD_OUT_MOST * total:
            held.append(one)
    return frozenset(one.name for one in held or [min(order, key=lambda one: len(one.text))])


def _ids(text: str, tokenizer: Any) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return found
