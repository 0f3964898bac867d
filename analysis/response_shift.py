"""From prompt to response: does the spectrum of the states get flatter or steeper (core.md 1.6)?

Prompt and response differ in length, which alone moves alpha, so both are cut to the shorter one's number of tokens.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.inference import MIN_CONFIDENT, percentile_interval
from analysis.matched import DRAWS, alpha_of, matched_spectra, mean_over_draws
from analysis.measured import Measured
from analysis.paired import PairedComparison, compare_paired

__all__ = [
    "EQUILIBRIUM", "ResponseShift", "ShiftClass", "TextShift", "response_shift", "shift_class",
    "text_shift",
]  # fmt: skip

ShiftClass = Literal["equilibrium", "flatter", "steeper"]

EQUILIBRIUM: Final = 0.10


@dataclass(frozen=True, eq=False)
class ResponseShift:
    """``Delta = alpha(response) - alpha(prompt)`` over prompts: the paired comparison, and its class by layer.

    ``table`` has layer, n, shift, low, high, sd, p_bh, class (None where undefined), status. ``overall`` is the class of
    the mean over layers, None if undefined; ``exploratory``: fewer than 20 prompts.
    """

    comparison: PairedComparison
    table: pd.DataFrame
    overall: ShiftClass | None
    exploratory: bool


@dataclass(frozen=True, slots=True)
class TextShift:
    """Alpha of one prompt and of its response at equal n, in one layer, each a mean over stretches of n tokens.

    ``low`` and ``high`` hold 95 % of the differences between single stretches of the two sides: how far alpha moves
    within this one text, **not** an interval over prompts. NaN where both sides are a single stretch.
    """

    prompt: Measured
    response: Measured
    low: float
    high: float

    @property
    def shift(self) -> float:
        return self.response.value - self.prompt.value


def text_shift(
    resid: Float[Tensor, "points tokens d_model"],
    response_start: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[TextShift]:
    """The shift of one text by point: tokens before ``response_start`` against the rest, both at the smaller side's n.

    Raises ValueError where either side has fewer than 5 kept tokens.
    """
    position = torch.arange(keep.shape[0])
    sides = keep & (position < response_start), keep & (position >= response_start)
    n = int(min(side.sum() for side in sides))
    both = (matched_spectra(resid, n, side, normed=normed, draws=draws, seed=seed) for side in sides)
    found = []
    for prompt, response in zip(*both, strict=True):
        before, after = (np.array([alpha_of()(one).value for one in side]) for side in (prompt, response))
        ends = percentile_interval((after[:, None] - before).reshape(-1, 1))
        low, high = (float(end[0]) if before.size + after.size > 2 else float("nan") for end in ends)
        found.append(TextShift(mean_over_draws(prompt, alpha_of()), mean_over_draws(response, alpha_of()), low, high))
    return found


def response_shift(
    prompt: Float64[np.ndarray, "prompts layers"], response: Float64[np.ndarray, "prompts layers"], *, seed: int = 0
) -> ResponseShift:
    """Shift and class of every layer and of the mean over layers, from alphas at equal n within each prompt."""
    compared = compare_paired(prompt, response, seed=seed)
    table = compared.table[["layer", "n", "difference", "low", "high", "sd", "p_bh"]].rename(
        columns={"difference": "shift"}
    )
    ends = table[["shift", "low", "high"]].itertuples(index=False)
    table = table.assign(status=compared.table["status"], **{"class": [shift_class(*row) for row in ends]})
    overall = shift_class(*(float(compared.overall[name]) for name in ("difference", "low", "high")))
    return ResponseShift(compared, table, overall, len(prompt) < MIN_CONFIDENT)


def shift_class(shift: float, low: float, high: float) -> ShiftClass | None:
    """``equilibrium`` if \\|shift\\| < .10 or the interval contains 0; else by its sign. None if undefined."""
    if np.isnan([shift, low, high]).any():
        return None
    if abs(shift) < EQUILIBRIUM or low <= 0 <= high:
        return "equilibrium"
    return "flatter" if shift < 0 else "steeper"
