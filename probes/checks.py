"""What parameters and edits have in common: whole numbers, finite numbers, and one sentence for what does not fit."""

from typing import Any

__all__ = ["require", "shown", "some_whole", "whole", "within_float32"]

_LARGEST = 3.0e38


def whole(value: Any) -> bool:
    """A whole number from 0; True and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def some_whole(values: Any) -> bool:
    """A non-empty tuple of whole numbers from 0."""
    return isinstance(values, tuple) and len(values) > 0 and all(map(whole, values))


def within_float32(value: Any) -> bool:
    """A finite number that float32 can hold; True is none, nor is NaN."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST


def shown(value: Any) -> str:
    """Any value as an error quotes it."""
    return repr(value if isinstance(value, str) else str(value))[:120]


def require(fits: bool, name: str, wanted: str, value: Any) -> None:
    """Raise ValueError in one sentence unless the parameter ``name`` (``probe.parameter``) fits."""
    if not fits:
        raise ValueError(f"{name} must be {wanted}, not {str(value)[:80]!r}.")
