"""Token spectra: alpha of the few tokens that end at each token, at every residual point, and its change along the text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from analysis.cascade import gradient
from analysis.windows import CHUNK_BYTES, window_fits
from probes.checks import require, whole
from probes.errors import BadRequest
from probes.memory import release
from probes.parallel import in_parallel, n_workers
from probes.probe import Context, ProbeSpec, Result

if TYPE_CHECKING:
    from probes.model.capture import Capture
    from probes.model.loaded import LoadedModel, ModelFacts

__all__ = [
    "PAPER_WINDOW", "WINDOW", "WINDOWS", "Params", "Rows", "check_window", "compatible", "cost", "run", "spec",
]  # fmt: skip

Rows = Literal["normed", "raw"]

WINDOW = 32
PAPER_WINDOW = 10
WINDOWS = (8, 128)


@dataclass(frozen=True)
class Params:
    """``window`` tokens end at each token (10 in arXiv 2604.15350; the standard deviation of alpha on stationary noise is
    .046 there and .013 at 32). ``rows`` are divided by their RMS (``normed``) or left as they are (``raw``)."""

    __no_type_check__ = True  # values come from people: refused in a sentence, not by the type hook of the tests

    window: int = WINDOW
    rows: Rows = "normed"

    def __post_init__(self) -> None:
        known = whole(self.window) and WINDOWS[0] <= self.window <= WINDOWS[1]
        require(known, "token_spectra.window", f"a whole number from {WINDOWS[0]} to {WINDOWS[1]}", self.window)
        require(self.rows in ("normed", "raw"), "token_spectra.rows", "normed or raw", self.rows)


spec = ProbeSpec(
    name="token_spectra",
    version=1,
    question="How does the spectrum of the latest tokens change along the text, and at which layers?",
    sites=frozenset({"resid"}),
    reductions=frozenset({"column_sum"}),
    tables=("token_metrics",),
)


def compatible(model: LoadedModel) -> str | None:
    return None


def cost(params: Params, facts: ModelFacts, n_tokens: int) -> int:
    """Float64 rows and Gram matrix of the points in work, a chunk of window blocks each, and the rows of the table."""
    blocks = min(CHUNK_BYTES, 4 * n_tokens * params.window**2 * 8)
    at_work = n_workers() * ((3 * n_tokens * facts.d_model + n_tokens**2) * 8 + blocks)
    return at_work + 2 * (facts.n_layers + 1) * n_tokens * 80


def check_window(window: int, n_tokens: int, name: str) -> None:
    """Raise BadRequest for a window longer than the text."""
    if window > n_tokens:
        raise BadRequest(f"{name} must be at most {n_tokens} here, the tokens of the text, not {window}.")


def run(capture: Capture, params: Params, context: Context) -> Result:
    """``token_alpha`` of the window that ends at each token and ``token_alpha_step`` from it to the next, at every point.

    ``n_used`` counts the window's kept tokens. Missing: ``too_few_tokens`` where the text is shorter than a window so far,
    or less than half of the window is kept (at least 4 tokens); otherwise as the fit says. A step is missing, with the
    reason, where either of its ends is; the last token has none (``not_applicable``). Raises BadRequest for a window
    longer than the text.
    """
    check_window(params.window, capture.n_tokens, "token_spectra.window")
    keep = capture.mask(context.mask)
    points = range(capture.model.facts.n_layers + 1)
    parts = []
    for point, frame in enumerate(in_parallel(partial(_at_point, capture, params, keep), points)):
        context.progress.step(point / len(points), f"windows of {params.window} tokens, point {point} of {points[-1]}")
        parts.append(frame)
        release()
    return Result({"token_metrics": pd.concat(parts, ignore_index=True)})


def _at_point(capture: Capture, params: Params, keep: Bool[Tensor, " tokens"], point: int) -> pd.DataFrame:
    resid: Float[Tensor, "tokens d_model"] = capture.resid(point)
    fits = window_fits(resid, params.window, keep, normed=params.rows == "normed")
    n = capture.n_tokens
    alpha = np.full(n, np.nan)
    status = np.full(n, "too_few_tokens", dtype=object)
    for last, fit in fits.items():
        alpha[last], status[last] = fit.alpha, fit.status
    step = np.append(gradient(alpha[None])[0], np.nan)
    undefined = np.isnan(alpha)
    why = np.where(undefined, status, np.append(status[1:], "not_applicable"))
    used = np.convolve(keep.numpy().astype(np.int64), np.ones(params.window, dtype=np.int64))[:n]
    of_step = np.append(np.minimum(used[:-1], used[1:]), used[-1])
    places = {"layer": pd.array([point] * n, dtype="Int64"), "pos": np.arange(n)}
    frames = [
        pd.DataFrame({**places, "metric": name, "value": values, "n_used": counts, "status": said})
        for name, values, counts, said in (
            ("token_alpha", alpha, used, status),
            ("token_alpha_step", step, of_step, why),
        )
    ]
    return pd.concat(frames, ignore_index=True)
