"""Do jumps of the per-token alpha fall on boundaries of the text (core.md 1.5)?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from scipy.ndimage import binary_dilation
from scipy.signal import find_peaks

from analysis.cascade import FLAT, gradient
from analysis.cascade_nulls import SHIFTS
from analysis.descriptors import MAD_TO_SD
from analysis.inference import benjamini_hochberg
from analysis.measured import Status

__all__ = ["BOUNDARY", "PunctuationTest", "alpha_events", "boundaries", "punctuation"]

BOUNDARY: Final = re.compile(
    r"""\bstep\s\d+                                                            # Step 3
      | \b(?:therefore|so|thus|hence|then|first|next|finally|because)\b        # connectives
      | \n[^\S\n]*\n                                                           # a blank line
      | [.!?](?=["')\]]*(?:\s|$))                                              # the end of a sentence, not 3.14
      | =""",
    re.IGNORECASE | re.VERBOSE,
)

MIN_Z: Final = 2.0
MIN_GAP: Final = 3
REACH: Final = 2


@dataclass(frozen=True, eq=False)
class PunctuationTest:
    """Rows by layer: events, hits (events with a boundary within 2 tokens), hit_rate, base_rate (tokens that have one),
    lift (their ratio), p (one-sided, events shifted circularly), p_bh (over layers), status.

    ``overall`` is the same row for the events of all layers together, every layer shifted by the same amount, so that
    layers that jump at the same token do not count as independent.
    """

    table: pd.DataFrame
    overall: pd.Series
    n_prompts: int


def boundaries(tokens: Sequence[str]) -> Bool[np.ndarray, " tokens"]:
    """Tokens in which a boundary begins: a connective, ``Step n``, a blank line, the end of a sentence, ``=``.

    The pattern runs over the joined text, so a boundary may stretch over tokens.
    """
    starts = np.cumsum([0, *(len(token) for token in tokens)])
    found = np.zeros(len(tokens), dtype=bool)
    places = [match.start() for match in BOUNDARY.finditer("".join(tokens))]
    found[np.searchsorted(starts, places, side="right") - 1] = True
    return found


def alpha_events(alpha: Float64[np.ndarray, "points tokens"]) -> Bool[np.ndarray, "points steps"]:
    """Steps t at which |z(g)| > 2 is a local maximum, at least 3 apart; z by median and MAD of each layer's gradient.

    ``g(t) = alpha(t+1) - alpha(t)``. A layer whose gradient is rounding, or undefined, has none.
    """
    g = gradient(alpha)
    events = np.zeros(g.shape, dtype=bool)
    for layer, steps in enumerate(g):
        defined = np.isfinite(steps)
        if not defined.any():
            continue
        middle = np.median(steps[defined])
        spread = MAD_TO_SD * np.median(np.abs(steps[defined] - middle))
        if spread > FLAT:
            z = np.where(defined, np.abs(np.where(defined, steps, 0) - middle) / spread, 0.0)
            peaks, _ = find_peaks(z, height=np.nextafter(MIN_Z, np.inf), distance=MIN_GAP)
            events[layer, peaks] = True
    return events


def punctuation(
    alphas: Sequence[Float64[np.ndarray, "points _"]],
    marks: Sequence[Bool[np.ndarray, " _"]],
    *,
    shifts: int = SHIFTS,
    seed: int = 0,
) -> PunctuationTest:
    """Hits of each layer's events over all prompts, beside 1000 circular shifts of the events along the defined steps.

    No boundary near any defined step, or one near all of them, is ``not_applicable``; a layer without an event has no
    rate. Raises ValueError where marks and alphas are not of the same tokens.
    """
    rng = np.random.default_rng(seed)
    n_points = len(alphas[0]) if alphas else 0
    n_events, hits = np.zeros(n_points), np.zeros(n_points)
    shifted, near_steps, all_steps = np.zeros((shifts, n_points)), 0, 0
    for alpha, mark in zip(alphas, marks, strict=True):
        if len(mark) != alpha.shape[1]:
            raise ValueError(f"boundaries of {len(mark)} tokens do not fit alphas of {alpha.shape[1]}")
        near = binary_dilation(mark, iterations=REACH)[:-1]
        steps = np.isfinite(gradient(alpha)).any(axis=0)
        events = alpha_events(alpha)[:, steps].astype(np.float64)
        near = near[steps].astype(np.float64)
        if near.size == 0:
            continue
        near_steps, all_steps = near_steps + int(near.sum()), all_steps + near.size
        n_events += events.sum(axis=1)
        hits += events @ near
        shifted += _hits_at(events, near, rng.integers(near.size, size=shifts))
    base_rate = near_steps / all_steps if all_steps else float("nan")
    testable = 0 < near_steps < all_steps
    layers = _rows(n_events, hits, shifted, base_rate, testable=testable)
    layers.insert(0, "layer", np.arange(n_points))
    layers.insert(layers.columns.get_loc("p") + 1, "p_bh", benjamini_hochberg(layers["p"].to_numpy(dtype=np.float64)))
    every, hit, moved = (part.sum(axis=-1, keepdims=True) for part in (n_events, hits, shifted))
    overall = _rows(every, hit, moved, base_rate, testable=testable).iloc[0]
    return PunctuationTest(layers, overall, len(alphas))


def _hits_at(
    events: Float64[np.ndarray, "points steps"],
    near: Float64[np.ndarray, " steps"],
    amount: Int64[np.ndarray, " shifts"],
) -> Float64[np.ndarray, "shifts points"]:
    """Hits with all events moved by each amount along the circle of steps."""
    every = np.fft.irfft(np.fft.rfft(events, axis=1).conj() * np.fft.rfft(near), n=near.size, axis=1)
    return np.rint(every[:, amount].T)


def _rows(
    n_events: Float64[np.ndarray, " rows"],
    hits: Float64[np.ndarray, " rows"],
    shifted: Float64[np.ndarray, "shifts rows"],
    base_rate: float,
    *,
    testable: bool,
) -> pd.DataFrame:
    usable = testable & (n_events > 0)
    hit_rate = hits / np.where(usable, n_events, np.nan)
    p = np.where(usable, (1 + (shifted >= hits).sum(axis=0)) / (1 + len(shifted)), np.nan)
    status: list[Status] = ["ok" if one else "not_applicable" for one in usable]
    counts = {"events": n_events.astype(np.int64), "hits": hits.astype(np.int64)}
    rates = {"hit_rate": hit_rate, "base_rate": base_rate, "lift": hit_rate / (base_rate or np.nan)}
    return pd.DataFrame(counts | rates | {"p": p, "status": status})
