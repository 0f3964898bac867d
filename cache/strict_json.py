"""JSON of unknown origin: refused before it can exhaust the stack or the memory."""

import json
import re
from typing import Any, NoReturn

import numpy as np

from cache.keys import canonical_json

__all__ = ["MAX_MARKS", "MAX_NESTING", "check_canonical", "nesting", "read_canonical", "read_json"]

MAX_NESTING = 64
MAX_MARKS = 4_000_000
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BLOCK = 1 << 20


def nesting(text: bytes) -> int:
    """How deep lists and objects of a JSON text lie inside each other; found without reading it as JSON."""
    marks = np.frombuffer(_STRING.sub(b"", text), np.uint8)
    depth = deepest = 0
    for start in range(0, len(marks), _BLOCK):
        block = marks[start : start + _BLOCK]
        steps = np.isin(block, (0x5B, 0x7B)).astype(np.int32) - np.isin(block, (0x5D, 0x7D))
        depths = depth + np.cumsum(steps)
        deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest


def read_json(text: bytes, what: str) -> Any:
    """The value of a JSON text. Raises ValueError, a sentence that begins with ``what``, for what is no JSON, has more
    than 64 levels or four million marks."""
    marks = sum(map(text.count, (b"[", b"{", b",", b'"')))
    if marks > MAX_MARKS:
        raise ValueError(f"{what} has {marks:,} brackets, commas and quotes; at most {MAX_MARKS:,} are read.")
    deep = nesting(text)
    if deep > MAX_NESTING:
        raise ValueError(f"{what} is nested {deep:,} deep; at most {MAX_NESTING} levels are read.")
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON ({str(error)[:200]}).") from None


def read_canonical(text: bytes, what: str) -> Any:
    """The value of a canonical JSON text. Raises ValueError as :func:`read_json` does, and for any other text of it."""
    value = read_json(text, what)
    check_canonical(value, text, what)
    return value


def check_canonical(value: Any, text: bytes, what: str) -> None:
    """Raises ValueError unless a JSON text is the canonical one of its value: nothing in it is said twice or hidden."""
    try:
        same = canonical_json(value).encode("ascii") == text
    except ValueError:  # 1e999
        same = False
    if not same:
        raise ValueError(f"{what} is not canonical JSON, with sorted keys, no spaces and finite numbers.")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
