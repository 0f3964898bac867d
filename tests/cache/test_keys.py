import json
import math
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from cache import canonical_json, digest

REPO = Path(__file__).parents[2]
REQUEST: dict[str, Any] = {
    "model": "tiny", "token_ids": [1, 2, 3], "probes": [["spectral", 1, {"k": 11, "tail": 0.5, "name": "é"}]], "mask": "all",
}  # fmt: skip


def test_the_text_is_sorted_compact_and_ascii() -> None:
    assert (
        canonical_json({"b": [1, True, None], "a": {"ü": "\u2028"}}) == '{"a":{"\\u00fc":"\\u2028"},"b":[1,true,null]}'
    )


def test_the_digest_is_blake2b_of_that_text() -> None:
    # b2sum -l 128 of the two characters {}
    assert digest({}) == "2afb9b83f9314e5d029766197f539792"
    assert digest(REQUEST) == digest(json.loads(canonical_json(REQUEST)))


def test_order_of_keys_does_not_matter() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


def test_tuples_are_lists_and_mappings_are_dicts() -> None:
    assert canonical_json({"a": (1, (2,))}) == canonical_json(MappingProxyType({"a": [1, [2]]}))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (1e-9, "1e-09"),
        (2**70, str(2**70)),
        (2.0**70, str(2**70)),
        (True, "true"),
    ],
)
def test_equal_numbers_have_one_text(value: float, text: str) -> None:
    assert canonical_json(value) == text
    assert canonical_json(json.loads(text)) == text


def test_a_boolean_is_not_a_number() -> None:
    assert len({digest([True]), digest([1]), digest(["1"]), digest([None]), digest([[]]), digest([{}])}) == 6


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, math.nan]}, r"\$\.a\[1\] is nan"),
        (math.inf, "finite"),
        ({1: 2}, "keys must be strings"),
        ({"a": {1, 2}}, r"\$\.a is of type set"),
        (np.float64(1.0), "float64"),
        (b"x", "bytes"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_place(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        canonical_json(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        digest(loop)


def test_lone_surrogates_and_nul_have_a_text() -> None:
    assert canonical_json("\ud800\0") == '"\\ud800\\u0000"'


@pytest.mark.parametrize("seed", ["0", "1234"])
def test_the_digest_is_the_same_in_every_process(seed: str) -> None:
    code = f"from cache.keys import digest; import sys; sys.stdout.write(digest({REQUEST!r}))"
    slim = "import sys, types; sys.modules['cache'] = types.ModuleType('cache'); sys.modules['cache'].__path__ = ['cache']; "
    told = subprocess.run(
        [sys.executable, "-c", slim + code],
        env={"PYTHONHASHSEED": seed},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == digest(REQUEST)
