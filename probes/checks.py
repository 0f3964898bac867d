"""What the parameters of probes have in common: whole numbers, and one sentence for what does not fit."""

from typing import Any

__all__ = ["require", "some_whole", "whole"]


def whole(value: Any) -> bool:
    """A whole number from 0; True and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def some_whole(values: Any) -> bool:
    """A non-empty tuple of whole numbers from 0."""
    return isinstance(values, tuple) and len(values) > 0 and all(map(whole, values))


def require(fits: bool, name: str, wanted: str, value: Any) -> None:
    """Raise ValueError in one sentence unless the parameter ``name`` (``probe.parameter``) fits."""
    if not fits:
        raise ValueError(f"{name} must be {wanted}, not {str(value)[:80]!r}.")
