"""Documents and text files as sequences of tokens an SAE is read on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from probes.errors import BadRequest
from probes.model.tokenise import Reads

__all__ = ["CONTEXT", "FileText", "TextDocument", "TextSequence", "cut_documents", "read_files"]

CONTEXT = 128
_LEAST = 16
_MAX_FILE = 64 << 20


@runtime_checkable
class TextDocument(Protocol):
    """What is indexed: running ``text``, or ``conversations`` of alternating user and assistant turns. A
    document of a corpus may say in ``max_chunks`` how many sequences of it are used."""

    @property
    def source(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def conversations(self) -> Sequence[Sequence[str]]: ...


@dataclass(frozen=True, slots=True)
class TextSequence:
    """Token ids that are read together, and where they come from."""

    source: str
    name: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileText:
    """A text file as a document."""

    source: str
    name: str
    text: str
    conversations: tuple[tuple[str, ...], ...] = ()


def read_files(paths: Sequence[Path]) -> tuple[FileText, ...]:
    """Text files as documents. Raises BadRequest for one that cannot be read, is no UTF-8 or larger than 64 MB."""
    found = []
    for path in paths:
        try:
            if path.stat().st_size > _MAX_FILE:
                raise BadRequest(f"The file {path} is larger than {_MAX_FILE >> 20} MB.")
            found.append(FileText("file", path.name, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            raise BadRequest(f"The file {path} cannot be read: is not UTF-8 text.") from None
        except OSError as error:
            raise BadRequest(f"The file {path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    return tuple(found)


def cut_documents(
    documents: Iterable[TextDocument],
    model: Reads,
    *,
    n_tokens: int,
    context: int = CONTEXT,
    per_document: int | None = None,
    seed: int = 0,
) -> tuple[TextSequence, ...]:
    """Sequences of ``context`` tokens (the last of a document may be shorter, down to 16), drawn at random until there are
    ``n_tokens``; each begins with BOS where the model has one. Longer ones come first, so that equal ones are neighbours.

    Of a long document at most its own ``max_chunks`` sequences are taken, or ``per_document``, drawn at random: one book
    would outweigh every article. Conversations are joined in the model's chat template.

    Raises:
        BadRequest: a number is out of range, or the documents hold no sequence of 16 tokens.
    """
    longest = min(model.facts.context, 4096)
    if not _LEAST <= context <= longest:
        raise BadRequest(f"The context must be {_LEAST} to {longest} tokens, not {context}.")
    if n_tokens < 1:
        raise BadRequest(f"The number of tokens must be at least 1, not {n_tokens}.")
    draw = random.Random(seed)
    found: list[TextSequence] = []
    for document in documents:
        pieces = _pieces(document, model, context)
        most = getattr(document, "max_chunks", None) if per_document is None else per_document
        if most is not None and len(pieces) > most:
            pieces = draw.sample(pieces, most)
        found += [TextSequence(document.source, document.name, piece) for piece in pieces]
    draw.shuffle(found)
    if not found:
        raise BadRequest(f"The text holds no {_LEAST} tokens in one piece; an index needs more.")
    taken, total = 0, 0
    while taken < len(found) and total < n_tokens:
        total += len(found[taken].ids)
        taken += 1
    return tuple(sorted(found[:taken], key=lambda one: -len(one.ids)))


def _pieces(document: TextDocument, model: Reads, context: int) -> list[tuple[int, ...]]:
    start = () if model.facts.bos_id is None else (model.facts.bos_id,)
    if document.conversations:
        return [ids[:context] for ids in _chats(document, model.tokenizer, context)]
    ids = model.tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    body = context - len(start)
    cut = [(*start, *ids[first : first + body]) for first in range(0, len(ids), body)]
    return [piece for piece in cut if len(piece) >= _LEAST]


def _chats(document: TextDocument, tokenizer: Any, context: int) -> list[tuple[int, ...]]:
    """Short conversations joined until they fill a sequence; none without a chat template."""
    if not tokenizer.chat_template:
        return []
    filled: list[tuple[int, ...]] = []
    messages: list[dict[str, str]] = []
    for turns in document.conversations:
        even = turns[: len(turns) // 2 * 2]
        messages += [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(even)]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= context:
            filled.append(tuple(ids))
            messages = []
    return filled
