"""Whether a response gives the known answer, by a written rule (core.md 1.6: labels of correctness)."""

import re
from typing import Final

from analysis.answer_span import ANSWER

__all__ = ["is_right"]

_NUMBER: Final = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_NUMBER_OR_WORD: Final = re.compile(rf"{_NUMBER.pattern}|[^\W\d_]+")
_WORD: Final = re.compile(r"\w+")
_SPELLED: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_TERSE: Final = 5
"""Words of a first line that is an answer by itself: what follows is not read."""


def is_right(response: str, answer: str) -> bool:
    """Whether ``response`` states ``answer``.

    Read is the rest of the line after the first ``answer is``, ``####`` or ``\\boxed`` that something stands behind; without
    one the first line if it has at most 5 words, else the first paragraph. A number is right if the first number behind
    such a mark equals it, without a mark the last one read (a sum names its parts first); up to twenty it may be spelled.
    Anything else is right if its words stand there next to each other, whatever their case. Raises ValueError for an
    answer without a letter or digit.
    """
    words = _words(answer)
    if not words:
        raise ValueError(f"an answer needs a letter or digit, {answer[:80]!r} has none")
    marked = [span for match in ANSWER.finditer(response) if _words(span := _line(response[match.end() :]))]
    read = marked[0] if marked else _unmarked(response)
    number = _number(answer)
    if number is not None:
        found = [value for word in _NUMBER_OR_WORD.findall(read) if (value := _number(word)) is not None]
        return bool(found) and found[0 if marked else -1] == number
    return f" {' '.join(words)} " in f" {' '.join(_words(read))} "


def _unmarked(response: str) -> str:
    line = _line(response)
    return line if len(_words(line)) <= _TERSE else re.split(r"\n\s*\n", response.strip(), maxsplit=1)[0]


def _line(text: str) -> str:
    return text.lstrip().partition("\n")[0]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _number(text: str) -> float | None:
    """The number a text is, also written ``1,200``, ``$5`` ``4.`` or ``four``; None for other text."""
    if text.strip(" .").casefold() in _SPELLED:
        return float(_SPELLED.index(text.strip(" .").casefold()))
    bare = text.strip().strip("$€£% .").replace(",", "")
    return float(bare) if _NUMBER.fullmatch(bare) else None
