"""The same text, changed in one respect: token ids for a second run, and which of its positions stand against the first's.

Nothing here needs a model's weights: a tokenizer and the facts of the model are enough (docs/methods/try.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from analysis.alignment import Alignment, by_position, by_token
from probes.errors import BadRequest
from probes.model.loaded import ModelFacts
from probes.model.tokenise import chat_ids, chat_parts, text_ids

__all__ = ["KINDS", "STORED", "Kind", "Reader", "Variation", "Varied", "vary"]

Kind = Literal["no_bos", "first_token", "chat", "shuffled", "twice", "own"]
KINDS: tuple[str, ...] = get_args(Kind)
_PREFERRED = "<|endoftext|>"
_FEWEST = 3  # tokens that are worth shuffling


@dataclass(frozen=True, slots=True)
class Reader:
    """A model as far as text goes: what is true of it, and its tokenizer."""

    facts: ModelFacts
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class Variation:
    """One change. ``text`` is the first token wanted (None: another special token) or one's own text; ``seed`` shuffles.

    Raises BadRequest when built with an unknown kind, a text where none belongs, or none where one does.
    """

    kind: str
    text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadRequest(f"A variation is one of {', '.join(KINDS)}, not {str(self.kind)[:80]!r}.")
        if self.text is not None and self.kind not in ("first_token", "own"):
            raise BadRequest(f"The variation {self.kind} takes no text.")
        if self.kind == "own" and not (self.text or "").strip():
            raise BadRequest("Give a text of your own.")
        if self.text == "":
            raise BadRequest("Give the first token: a word such as The, or a special token of the model.")
        if self.seed < 0:
            raise BadRequest(f"The seed must be 0 or more, not {self.seed}.")


STORED = tuple(Variation(kind) for kind in KINDS if kind != "own")


@dataclass(frozen=True, slots=True)
class Varied:
    """The token ids of the second run, and pairs of positions (first run, second run) that hold the same place."""

    token_ids: tuple[int, ...]
    alignment: Alignment


def vary(token_ids: Sequence[int], reader: Reader, variation: Variation) -> Varied:
    """Make a variation of a run's token ids. Raises BadRequest, in one sentence, where it cannot be made of them."""
    ids = tuple(int(i) for i in token_ids)
    if variation.kind == "no_bos":
        return _without_bos(ids, reader)
    if variation.kind == "first_token":
        return _other_first(ids, reader, variation.text)
    if variation.kind == "chat":
        return _chat(ids, reader)
    if variation.kind == "shuffled":
        return _shuffled(ids, variation.seed)
    if variation.kind == "twice":
        return _twice(ids, reader)
    return _own(ids, reader, str(variation.text))


def _without_bos(ids: tuple[int, ...], reader: Reader) -> Varied:
    if not _has_bos(ids, reader):
        raise BadRequest("This run does not begin with a BOS token, so there is none to leave out.")
    if len(ids) < 2:
        raise BadRequest("Without its BOS token this run has no tokens.")
    return Varied(ids[1:], Alignment(tuple((i, i - 1) for i in range(1, len(ids)))))


def _other_first(ids: tuple[int, ...], reader: Reader, text: str | None) -> Varied:
    """What stands at position 0 is replaced, be it BOS or a word. Position 0 is aligned: the place is what is asked about."""
    first = _another_special(ids[0], reader) if text is None else _one_token(text, reader)
    if first == ids[0]:
        raise BadRequest("The text begins with that token already.")
    return Varied((first, *ids[1:]), by_position(len(ids), len(ids)))


def _chat(ids: tuple[int, ...], reader: Reader) -> Varied:
    """The decoded text as one message of a user; where it comes back tokenised otherwise, only what matches is aligned.

    Position 0 is aligned where both begin with BOS.
    """
    if not reader.tokenizer.chat_template:
        raise BadRequest(f"{reader.facts.name} has no chat template.")
    bos = _has_bos(ids, reader)
    said = ids[1:] if bos else ids
    specials = set(reader.tokenizer.all_special_ids)
    if any(i in specials for i in said):
        raise BadRequest("This run has special tokens inside, as a chat has: it is in a template already.")
    if not said:
        raise BadRequest("There is no text to put into the chat template.")
    text = reader.tokenizer.decode(list(said), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    message = [{"role": "user", "content": text}]
    made = chat_ids(reader, message, bos=bos)
    _, inside, after = chat_parts(reader, message)
    start = len(made) - len(after) - len(inside)
    pairs = [(a + bos, b + start) for a, b in _matched(said, inside).pairs]
    first = [(0, 0)] if bos and start and made[0] == ids[0] else []
    return Varied(made, Alignment((*first, *pairs)))


def _shuffled(ids: tuple[int, ...], seed: int) -> Varied:
    """Position 0 stays; all others are drawn anew until their order differs."""
    rest = np.array(ids[1:])
    if len(rest) < _FEWEST:
        raise BadRequest(f"There are only {len(rest)} tokens to shuffle; it takes at least {_FEWEST}.")
    if len(set(ids[1:])) < 2:
        raise BadRequest("All tokens to shuffle are the same.")
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(rest))
    while np.array_equal(rest[order], rest):
        order = draw.permutation(len(rest))
    pairs = [(0, 0), *((int(old) + 1, new + 1) for new, old in enumerate(order))]
    return Varied((ids[0], *(int(i) for i in rest[order])), Alignment(tuple(pairs)))


def _twice(ids: tuple[int, ...], reader: Reader) -> Varied:
    made = ids + (ids[1:] if _has_bos(ids, reader) else ids)
    context = reader.facts.context
    if len(made) == len(ids):
        raise BadRequest("There is no text to repeat.")
    if len(made) > context:
        raise BadRequest(f"Twice the text is {len(made)} tokens; {reader.facts.name} takes at most {context}.")
    return Varied(made, by_position(len(ids), len(ids)))


def _own(ids: tuple[int, ...], reader: Reader, text: str) -> Varied:
    made = text_ids(reader, text, bos=_has_bos(ids, reader))
    return Varied(made, _matched(ids, made))


def _matched(ids: tuple[int, ...], made: tuple[int, ...]) -> Alignment:
    """All tokens where both are the same text, else those that match."""
    if ids == made:
        return by_position(len(ids), len(made))
    return by_token([str(i) for i in ids], [str(i) for i in made])


def _has_bos(ids: tuple[int, ...], reader: Reader) -> bool:
    return reader.facts.bos_id is not None and ids[0] == reader.facts.bos_id


def _another_special(first: int, reader: Reader) -> int:
    """``<|endoftext|>`` where the model has it, else the first of its special tokens that does not stand there."""
    specials = [int(i) for i in reader.tokenizer.all_special_ids]
    preferred = reader.tokenizer.get_added_vocab().get(_PREFERRED)
    for token in specials if preferred is None else [preferred, *specials]:
        if token != first and token < reader.facts.d_vocab:
            return int(token)
    raise BadRequest(f"{reader.facts.name} has no other special token to begin with: give a word.")


def _one_token(text: str, reader: Reader) -> int:
    """The token of that very text: a special token by its name, or a piece of text that is one token."""
    added = reader.tokenizer.get_added_vocab()
    if text in added or text in reader.tokenizer.all_special_tokens:
        return int(added[text] if text in added else reader.tokenizer.convert_tokens_to_ids(text))
    ids = reader.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if len(ids) != 1:
        raise BadRequest(f"{text[:80]!r} is {len(ids)} tokens of {reader.facts.name}; the first token must be one.")
    return int(ids[0])
