"""Text and chat messages to token ids: BOS only where absent, typed specials are text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int64
from torch import Tensor

from probes.errors import BadRequest
from probes.model.loaded import ModelFacts

__all__ = ["Reads", "chat_ids", "chat_parts", "pieces", "text_ids"]

MAX_CHARACTERS = 1_000_000


@runtime_checkable
class Reads(Protocol):
    """A model as far as text goes; its weights are not needed."""

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def tokenizer(self) -> Any: ...


def text_ids(model: Reads, text: str, *, bos: bool = True) -> tuple[int, ...]:
    """Token ids of plain text. What a person types is text, also ``<|im_start|>``; BOS is added where the model has one.

    Raises BadRequest for empty text, text that is not valid Unicode, and text beyond the model's context.
    """
    if not text.strip():
        raise BadRequest("The text is empty: give at least one visible character.")
    _check_text(text)
    ids = model.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    start = model.facts.bos_id
    if bos and start is not None and (not ids or ids[0] != start):
        ids = [start, *ids]
    return _within_context(model, ids)


def chat_ids(model: Reads, messages: Sequence[Mapping[str, str]], *, bos: bool = True) -> tuple[int, ...]:
    """Token ids of a conversation through the model's own chat template, ending where the assistant would begin.

    Only the template emits special tokens: special markers typed inside a message stay text. Raises BadRequest when the
    model has no chat template or refuses the conversation.
    """
    ids = [token for part in chat_parts(model, messages) for token in part]
    start = model.facts.bos_id
    if bos and start is not None and (not ids or ids[0] != start):
        ids = [start, *ids]
    return _within_context(model, ids)


def chat_parts(model: Reads, messages: Sequence[Mapping[str, str]]) -> tuple[tuple[int, ...], ...]:
    """The token ids of :func:`chat_ids` before BOS, in parts: template, first message, template, second message, ...,
    template. Raises BadRequest as it does."""
    if not model.tokenizer.chat_template:
        raise BadRequest(f"{model.facts.name} has no chat template: give plain text instead.")
    for message in messages:
        _check_text(message["content"])
    marks = {f"\ue000{index}\ue001": message["content"] for index, message in enumerate(messages)}
    shells = [{"role": m["role"], "content": mark} for m, mark in zip(messages, marks, strict=True)]
    try:
        shell = model.tokenizer.apply_chat_template(shells, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates raise whatever their authors chose
        raise BadRequest(
            f"The chat template of {model.facts.name} refuses this conversation: {str(error)[:200]}"
        ) from error
    parts: list[tuple[int, ...]] = []
    for mark, content in marks.items():
        before, found, shell = shell.partition(mark)
        if not found:
            raise BadRequest(f"The chat template of {model.facts.name} leaves out a message of this conversation.")
        parts.append(tuple(model.tokenizer(before, add_special_tokens=False)["input_ids"]))
        parts.append(tuple(model.tokenizer(content, add_special_tokens=False, split_special_tokens=True)["input_ids"]))
    return *parts, tuple(model.tokenizer(shell, add_special_tokens=False)["input_ids"])


def pieces(tokenizer: Any, token_ids: Int64[Tensor, "tokens"] | Sequence[int]) -> tuple[str, ...]:
    """The text of each position on its own. A piece that is part of a character shows as its bytes, ``\\xE2``."""
    ids = [int(i) for i in token_ids]
    texts = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return tuple(_raw_bytes(tokenizer, i) if "�" in text else text for i, text in zip(ids, texts, strict=True))


def _raw_bytes(tokenizer: Any, token_id: int) -> str:
    """The bytes of a byte-level piece, through the byte alphabet its vocabulary is written in."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    alphabet = _byte_alphabet()
    if token is None or any(character not in alphabet for character in token):
        return str(token)
    stored = bytes(alphabet[character] for character in token)
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02X}" for byte in stored)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, inverted."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}


def _check_text(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise BadRequest(f"The text has {len(text)} characters; at most {MAX_CHARACTERS} are taken.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"The text is not valid Unicode: a lone surrogate stands at character {error.start}."
        ) from None


def _within_context(model: Reads, ids: Sequence[int]) -> tuple[int, ...]:
    if len(ids) > model.facts.context:
        raise BadRequest(f"The text has {len(ids)} tokens; {model.facts.name} takes at most {model.facts.context}.")
    return tuple(int(i) for i in ids)
