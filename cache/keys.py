"""One text and one key for equal things: canonical JSON and its digest."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["canonical_json", "digest"]

_DIGEST_BYTES = 16


def canonical_json(value: Any) -> str:
    """The one JSON text of a value made of None, booleans, numbers, strings, lists or tuples, and string-keyed mappings.

    Keys are sorted, nothing is indented, everything beyond ASCII is escaped. A tuple is written like a list, and a whole
    float like the integer it equals (as in RFC 8785): 1 and 1.0 compare equal, so they have one text; True has another.
    Independent of the order of dicts and of PYTHONHASHSEED; reading the text and writing it again changes nothing.

    Raises ValueError for NaN, infinities, keys that are not strings, every other type, and values that contain themselves.
    """
    try:
        return json.dumps(_plain(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except RecursionError:
        raise ValueError("the value is nested too deeply, or contains itself") from None


def digest(value: Any) -> str:
    """32 hexadecimal digits (BLAKE2b, 128 bits) of the canonical JSON of a value. Raises ValueError as it does."""
    return hashlib.blake2b(canonical_json(value).encode("ascii"), digest_size=_DIGEST_BYTES).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """The value with tuples as lists and whole floats as integers; ``where`` is its place, for the error."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, and a key can only be made of finite numbers")
        return int(value) if value.is_integer() else value
    if kind in (list, tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise ValueError(f"{where} has the key {key!r}, and keys must be strings")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise ValueError(f"{where} is of type {kind.__name__}, which has no canonical JSON")
