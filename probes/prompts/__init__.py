"""The texts shipped with the app: example passages to open with, and the bank the mean-corrected lens averages over.

Both are JSON lines beside this file, written for this project. No bank text shares a passage with an example, so a
mean of the bank is a mean over other text than the one it corrects (docs/methods, logit lens).
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["BankText", "Example", "bank", "examples"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Example:
    """A passage of 150-260 tokens that a page can open with."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class BankText:
    """One text of the mean bank, 100-400 tokens long."""

    id: str
    source: str
    text: str


@cache
def examples() -> tuple[Example, ...]:
    """The example passages; the first is the one the Overview opens with."""
    return tuple(Example(**row) for row in _rows("examples.jsonl"))


@cache
def bank() -> tuple[BankText, ...]:
    """The texts of the mean bank, in file order."""
    return tuple(BankText(**row) for row in _rows("bank.jsonl"))


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines()]
