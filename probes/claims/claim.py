"""What a claim is: a reported finding, how it is tested here, and what came of the test.

A claim is one module ``probes/claims/<name>.py`` with a frozen ``claim`` and a function ``test(bench) -> Outcome``, which
raises :class:`Untestable` where model and set cannot tell. :mod:`probes.claims.registry` lists them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import pandas as pd

from probes.claims.bench import Bench

__all__ = ["VERDICTS", "Claim", "Outcome", "Tested", "Untestable", "Verdict", "finite", "plain_rows"]

Verdict = Literal["holds", "does not hold", "cannot be tested here"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Untestable(Exception):
    """Model and set cannot tell whether the claim holds; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A finding under test.

    ``reported`` is what ``paper`` says, ``tested`` how it is tested here, ``rule`` what decides the verdict, ``distrust``
    when not to believe it. ``prompts`` names the set it is tested on unless another is given. ``shuffles`` says what the
    control of the bench permutes before the test; None where the claim pairs nothing. A changed test is another
    ``version``.
    """

    name: str
    title: str
    paper: str
    reported: str
    tested: str
    rule: str
    distrust: str
    prompts: str
    shuffles: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a test. Missing numbers are None: ``reason`` says why in a sentence.

    ``effect`` is in ``unit`` with its 95 % interval from ``low`` to ``high`` over ``n`` units of replication (``of``);
    ``control`` is what the effect is where the phenomenon is absent, and ``control_is`` says how that was found.
    ``details`` are rows of a small table, all with the same keys.
    """

    verdict: Verdict
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    control: float | None = None
    control_is: str = ""
    n: int = 0
    of: str = "prompts"
    details: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a verdict is one of {', '.join(VERDICTS)}, not {self.verdict!r}")
        numbers = (self.effect, self.low, self.high, self.control)
        if any(one is not None and not math.isfinite(one) for one in numbers):
            raise ValueError("a number of an outcome is finite, or None where it is missing")
        if self.verdict == "holds" and self.effect is None:
            raise ValueError("a claim that holds has an effect")

    def as_document(self) -> dict[str, Any]:
        """The outcome as plain values."""
        return dataclasses.asdict(self) | {"details": [dict(row) for row in self.details]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Outcome:
        """The outcome back from its plain values; other keys are left alone."""
        known = {field.name: document[field.name] for field in dataclasses.fields(cls)}
        return cls(**known | {"details": tuple(known["details"])})


@runtime_checkable
class Tested(Protocol):
    """The shape of a claim's module."""

    claim: Claim

    def test(self, bench: Bench) -> Outcome:
        """Test the claim. Raises Untestable, and what a sweep raises."""


def plain_rows(frame: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    """The rows of a table of numbers as plain values: whole numbers stay whole, what is undefined is None."""
    whole = {str(name) for name in frame.columns if pd.api.types.is_integer_dtype(frame[name])}
    return tuple(
        {str(name): int(value) if name in whole else finite(float(value)) for name, value in row.items()}
        for row in frame.to_dict("records")
    )


def finite(value: float) -> float | None:
    """The number, or None where it is undefined or infinite."""
    return float(value) if math.isfinite(value) else None
