"""Chat messages out of JSON of unknown origin."""

from __future__ import annotations

import json
from typing import Any

from probes.errors import BadRequest

__all__ = ["check_messages", "parse_messages"]


def parse_messages(text: str) -> tuple[dict[str, str], ...]:
    """Chat messages out of JSON: a non-empty list of ``{"role": system|user|assistant, "content": text}``."""
    try:
        messages = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadRequest(f"The messages are not valid JSON: {error}.") from None
    return check_messages(messages)


def check_messages(messages: Any) -> tuple[dict[str, str], ...]:
    """The messages themselves. Raises BadRequest for what :func:`parse_messages` does not describe."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("The messages must be a non-empty JSON list of objects with role and content.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise BadRequest(f"Message {index} must be an object with exactly role and content.")
        if message["role"] not in ("system", "user", "assistant") or not isinstance(message["content"], str):
            raise BadRequest(f"Message {index} must have the role system, user or assistant and text as content.")
    return tuple(messages)
