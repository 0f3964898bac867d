"""Fault 10: changing any input of a key changes the key; the order of a dict and PYTHONHASHSEED do not."""

import copy
import random
from collections.abc import Iterator
from typing import Any

from cache import digest

KEY: dict[str, Any] = {
    "fingerprint": "abc",
    "token_ids": [1, 2, 3],
    "edits": [{"site": "resid", "layer": 3, "positions": [0], "op": "scale", "source": 0.5}],
    "dtype": "float32",
    "mask": "all",
    "probes": [["spectral", 1, {"k_min": 11, "windows": [8, 16], "tail": None, "exact": True}]],
    "versions": {"torch": "2.13.0"},
}


def changes(value: Any) -> Iterator[Any]:
    """The value with one thing in it changed, in every place and way there is."""
    if isinstance(value, dict):
        for key in value:
            for changed in changes(value[key]):
                yield {**value, key: changed}
            yield {other: item for other, item in value.items() if other != key}
            yield {(key + "_" if other == key else other): item for other, item in value.items()}
        yield {**value, "new": None}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in changes(item))
            yield value[:index] + value[index + 1 :]
        yield [*value, 0]
        if value != value[::-1]:
            yield value[::-1]
        yield {"0": value}
    elif isinstance(value, str):
        yield from (value + " ", value.upper() + "x", None, [value])
    elif isinstance(value, bool):
        yield from (not value, int(value), str(value))
    elif value is None:
        yield from (0, "", "null", False, [])
    else:
        yield from (value + 1, value + 1e-9, -value - 1, str(value), [value])


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        dice.shuffle(keys)
        return {key: shuffled(value[key], dice) for key in keys}
    return tuple(shuffled(item, dice) for item in value) if isinstance(value, list) else copy.copy(value)


def test_any_change_changes_the_key() -> None:
    keys = [digest(KEY), *map(digest, changes(KEY))]
    assert len(keys) > 100
    assert len(set(keys)) == len(keys)


def test_order_does_not() -> None:
    dice = random.Random(3)
    assert {digest(shuffled(KEY, dice)) for _ in range(200)} == {digest(KEY)}
