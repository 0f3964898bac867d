"""Prompt sets: prompts with groups and answers as JSON lines, built in or imported; every line is checked.

A line is one object: ``id``, ``text`` or ``messages`` (role and content), and where they are known ``group``, ``answer``
and ``response``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cache.keys import canonical_json, digest
from probes.errors import BadRequest
from probes.prompts.messages import check_messages

__all__ = ["BUILT_IN", "MAX_BYTES", "MAX_PROMPTS", "Prompt", "PromptSet", "built_in", "check_set_name", "read_set"]

BUILT_IN = "built in"
MAX_BYTES = 32 << 20
MAX_PROMPTS = 10_000
_FOLDER = Path(__file__).parent
_FILES = {"factual-reasoning": "factual_reasoning", "idioms": "idioms", "passages": "passages"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEYS = ("id", "text", "messages", "group", "answer", "response")
_SHORT = {"id": 100, "group": 60}  # characters; the others may be as long as the file


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, plain ``text`` or chat ``messages``, and what is known of it.

    ``group`` is what prompts are compared by, ``answer`` what a right continuation says, ``response`` what some model
    once answered.
    """

    id: str
    text: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    group: str | None = None
    answer: str | None = None
    response: str | None = None

    @property
    def shown(self) -> str:
        """The prompt as one text; of a conversation what was said, one message after the other."""
        return self.text if self.text is not None else "\n".join(one["content"] for one in self.messages or ())

    def as_row(self) -> dict[str, Any]:
        """The line this prompt is written as, without what it does not have."""
        row = {key: getattr(self, key) for key in _KEYS}
        row["messages"] = None if self.messages is None else [dict(one) for one in self.messages]
        return {key: value for key, value in row.items() if value is not None}


@dataclass(frozen=True)
class PromptSet:
    """Prompts under a name. ``source`` says where they come from: built in, or the file they were imported from."""

    name: str
    source: str
    prompts: tuple[Prompt, ...]

    @cached_property
    def set_id(self) -> str:
        """The key of name and content: a changed prompt is another set."""
        return digest({"name": self.name, "prompts": [prompt.as_row() for prompt in self.prompts]})

    @cached_property
    def groups(self) -> Mapping[str, int]:
        """The groups in the order they appear, with their number of prompts; prompts without a group are not counted."""
        return Counter(prompt.group for prompt in self.prompts if prompt.group is not None)

    def jsonl(self) -> str:
        """The set as the file it could be imported from."""
        return "".join(json.dumps(prompt.as_row(), ensure_ascii=False) + "\n" for prompt in self.prompts)


@cache
def built_in() -> tuple[PromptSet, ...]:
    """The sets that come with the app, written for it (docs/methods/sets.md)."""
    return tuple(
        read_set(name, (_FOLDER / f"{file}.jsonl").read_bytes(), BUILT_IN, f"{file}.jsonl")
        for name, file in _FILES.items()
    )


def check_set_name(name: str) -> str:
    """The name itself; raises BadRequest for one that is no name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            "A set's name has 1 to 64 letters, digits, dots, dashes and underscores and begins with a letter or digit; "
            f"{name[:80]!r} does not."
        )
    return name


def read_set(name: str, content: bytes, source: str, what: str) -> PromptSet:
    """A set out of JSON lines; empty lines are passed over. ``what`` is what refusals call the content.

    Raises BadRequest naming the first broken line and what is wrong with it.
    """
    check_set_name(name)
    if len(content) > MAX_BYTES:
        raise BadRequest(f"{what} has {len(content):,} bytes; a set has at most {MAX_BYTES:,}.")
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    prompts: list[Prompt] = []
    ids: dict[str, int] = {}
    said: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(prompts) == MAX_PROMPTS:
                raise BadRequest(f"a set has at most {MAX_PROMPTS:,} prompts.")
            prompt = _prompt(line)
            _first(ids, prompt.id, number, f"the id {prompt.id!r}")
            _first(said, canonical_json([prompt.text, prompt.as_row().get("messages")]), number, "the same prompt")
        except BadRequest as problem:
            raise BadRequest(f"{what}, line {number}: {problem} Nothing was imported.") from None
        prompts.append(prompt)
    if not prompts:
        raise BadRequest(f"{what} holds no prompts: a set has one JSON object a line.")
    return PromptSet(name, source, tuple(prompts))


def _prompt(line: bytes) -> Prompt:
    row = _object(line)
    for key in row:
        if key not in _KEYS:
            raise BadRequest(f"there is no key {key[:60]!r}; the keys are {', '.join(_KEYS)}.")
    texts = {key: _text(key, row[key]) for key in _KEYS if key != "messages" and row.get(key) is not None}
    if "id" not in texts:
        raise BadRequest("an id is missing.")
    if ("text" in texts) == (row.get("messages") is not None):
        raise BadRequest("give either text or messages.")
    messages = None if "text" in texts else check_messages(row["messages"])
    for message in messages or ():
        _text("content", message["content"])
    return Prompt(**texts, messages=messages)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise BadRequest(f"byte {error.start + 1} is no UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"not valid JSON ({error.msg} at character {error.colno}).") from None
    except RecursionError:
        raise BadRequest("not valid JSON (nested too deeply).") from None
    if not isinstance(value, dict):
        raise BadRequest("not a JSON object in braces.")
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise BadRequest(f"the key {key[:60]!r} stands there {times} times.")
    return dict(pairs)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"{key} must be text that is not empty.")
    if len(value) > _SHORT.get(key, len(value)):
        raise BadRequest(f"{key} has {len(value):,} characters; at most {_SHORT[key]} are taken.")
    if key in _SHORT and not value.isprintable():
        raise BadRequest(f"{key} must be on one line and without invisible characters.")
    if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise BadRequest(f"{key} holds a sign that is no text.")
    return value


def _first(seen: dict[str, int], key: str, number: int, what: str) -> None:
    """Note where a key stands; raises BadRequest if it stood on an earlier line."""
    if key in seen:
        raise BadRequest(f"{what} stands on line {seen[key]} already.")
    seen[key] = number
