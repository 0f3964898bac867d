"""One number with what it rests on: the envelope of every metric (core.md section 0)."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Measured", "Status", "undefined"]

Status = Literal[
    "ok",
    "low_confidence",
    "too_few_tokens",
    "too_few_prompts",
    "lengths_differ",
    "rank_deficient",
    "single_class",
    "non_finite",
    "not_applicable",
    "not_requested",
]


@dataclass(frozen=True, slots=True)
class Measured:
    """A value, the number of samples it used, and why it is missing if it is.

    An undefined value is NaN with a status other than ``ok`` or ``low_confidence``; it is never 0.
    """

    value: float
    n_used: int
    status: Status = "ok"

    def __post_init__(self) -> None:
        defined = self.status in ("ok", "low_confidence")
        if defined == math.isnan(self.value):
            raise ValueError(f"a value of {self.value} cannot have the status {self.status}")


def undefined(status: Status, n_used: int = 0) -> Measured:
    """A missing value with its reason."""
    return Measured(math.nan, n_used, status)
