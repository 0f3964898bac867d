"""The scale of one number a token: limits that a few outliers do not set, and what its two ends say."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["FLOOR", "Kind", "Scale", "scale_of"]

Kind = Literal["sequential", "diverging", "count"]
FLOOR = 1e-6  # of the larger magnitude: differences below it are rounding, not numbers
_TRIMMED = (1, 99)
_FENCE = 3.0  # interquartile ranges beyond the quartiles: "far out" (Tukey, 1977)


@dataclass(frozen=True, slots=True)
class Scale:
    """Colour limits in the units of the values. ``count`` is logarithmic in 1 + value, so 2 and 200 are told apart."""

    low: float
    high: float
    kind: Kind = "sequential"

    def bins(self, values: Float[np.ndarray, "token"], n_bins: int) -> Int[np.ndarray, "token"]:
        """The bin of each value, ends included; -1 where it is not finite."""
        known = np.isfinite(values)
        filled = np.where(known, values, self.low)
        at, low, high = (self._along(np.asarray(part, dtype=float)) for part in (filled, self.low, self.high))
        place = np.clip((at - low) / ((high - low) or 1.0), 0, 1)
        return np.where(known, np.rint(place * (n_bins - 1)), -1).astype(int)

    def ends(self, values: Float[np.ndarray, "token"]) -> tuple[str, str]:
        """What is written at both ends: "≤" and "≥" where some value lies beyond."""
        known = values[np.isfinite(values)]
        below, above = bool((known < self.low).any()), bool((known > self.high).any())
        low, high = f"{'≤ ' * below}{self.low:.3g}", f"{'≥ ' * above}{self.high:.3g}"
        return low, f"{high} (log)" if self.kind == "count" else high

    def _along(self, values: np.ndarray) -> np.ndarray:
        return np.log1p(np.maximum(values, 0)) if self.kind == "count" else values


def scale_of(
    values: Float[np.ndarray, "token"],
    kind: Kind = "sequential",
    *,
    kept: Bool[np.ndarray, "token"] | None = None,
    floor: float = 0.0,
) -> Scale:
    """The scale of values (NaN: missing).

    Limits are the 1st and 99th percentile of the ``kept`` values (all where none of them is known), and never further
    than three interquartile ranges from the quartiles; around zero for ``diverging``, and then no narrower than
    ``floor``. Of a ``count`` every value counts: its scale is logarithmic from 0.
    """
    known = np.isfinite(values)
    if not known.any():
        return Scale(-1.0 if kind == "diverging" else 0.0, 1.0, kind)
    if kind == "count":
        return Scale(0.0, float(values[known].max()) or 1.0, kind)
    used = known & kept if kept is not None and (known & kept).any() else known
    low, q1, q3, high = np.percentile(values[used], [_TRIMMED[0], 25, 75, _TRIMMED[1]]).tolist()
    if q3 > q1:
        low, high = max(low, q1 - _FENCE * (q3 - q1)), min(high, q3 + _FENCE * (q3 - q1))
    if kind == "diverging":
        span = max(abs(low), abs(high), floor) or 1.0
        return Scale(-span, span, kind)
    return Scale(low, high, kind)
