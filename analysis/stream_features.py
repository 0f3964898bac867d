"""EigenTrack-style description of a growing text: spectral features of a sliding window (core.md 1.8, arXiv 2509.15735).

The paper feeds them to a recurrent classifier; here they are summarised and go to the logistic regression of
:mod:`analysis.prediction`, which a hundred prompts can support.
"""

from typing import Final

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from analysis.alpha import fit_spectrum
from analysis.descriptors import describe
from analysis.groups import Groups, compare_groups
from analysis.marchenko_pastur import covariance_eigenvalues, mp_fit
from analysis.preparation import prepare
from analysis.windows import window_spectra

__all__ = ["FEATURES", "SUMMARIES", "WINDOW", "prefix_summaries", "rank_features", "stream_features", "summarise"]

WINDOW: Final = 32
LEADING: Final = 5
FEATURES: Final = (
    *(f"ln_lambda_{k}" for k in range(1, LEADING + 1)),
    "gap",
    "entropy_normalised",
    "participation_ratio",
    "alpha_sigma",
    "mp_ks",
    "mp_outliers",
)
"""ln(lambda_k / sum lambda) for k = 1..5; (lambda_1 - lambda_2) / lambda_1; entropy over ln min(n, d); then as in
`describe`, `alpha_rank` and `mp_fit` (of the column-standardised window)."""

SUMMARIES: Final = tuple(f"{name}_{how}" for how in ("mean", "slope", "last") for name in FEATURES)


def stream_features(
    resid: Float[Tensor, "tokens d_model"], keep: Bool[Tensor, " tokens"], *, normed: bool, w: int = WINDOW
) -> Float64[np.ndarray, "windows features"]:
    """`FEATURES` of every window of ``w`` neighbours among the kept tokens of one layer, hop 1; NaN where undefined.

    Empty for fewer than ``w`` kept tokens. Raises ValueError for a window below the 32 that Marchenko-Pastur needs.
    """
    if w < WINDOW:
        raise ValueError(f"the window must be at least {WINDOW}, not {w}")
    rows = prepare(resid, keep, normed=normed, centre=False)
    n_windows = max(0, len(rows) - w + 1)
    found = np.full((n_windows, len(FEATURES)), np.nan)
    if n_windows == 0:
        return found
    every = torch.ones(len(rows), dtype=torch.bool)
    for i, spectrum in enumerate(window_spectra(rows, torch.arange(n_windows), w, every)):
        if spectrum.status != "ok" or spectrum.rank < LEADING:
            continue
        scalars = describe(spectrum)
        share = spectrum.s**2 / (spectrum.s**2).sum()
        eigenvalues, d = covariance_eigenvalues(prepare(rows[i : i + w], every[:w], normed=False))
        law = mp_fit(eigenvalues, w, d)
        found[i] = (
            *np.log(share[:LEADING]),
            1 - share[1] / share[0],
            scalars.entropy_normalised,
            scalars.participation_ratio,
            fit_spectrum(spectrum).alpha,
            law.ks,
            law.n_outliers if law.status == "ok" else np.nan,
        )
    return found


def summarise(features: Float64[np.ndarray, "windows features"]) -> Float64[np.ndarray, " summaries"]:
    """`SUMMARIES` of a whole stream: mean, slope a window, last value; NaN without a window, the slope below two."""
    if len(features) == 0:
        return np.full(3 * features.shape[1], np.nan)
    whole: Float64[np.ndarray, " summaries"] = prefix_summaries(features)[-1]
    return whole


def prefix_summaries(
    features: Float64[np.ndarray, "windows features"],
) -> Float64[np.ndarray, "windows summaries"]:
    """`SUMMARIES` of windows 0..t for every t: what is known of the stream at that window.

    Over the windows in which a feature is defined.
    """
    defined = np.isfinite(features)
    y = np.where(defined, features, 0)
    t = np.arange(len(features), dtype=np.float64)[:, None] * defined
    n, sum_t, sum_tt = (np.cumsum(part, axis=0) for part in (defined.astype(np.float64), t, t**2))
    sum_y, sum_ty = np.cumsum(y, axis=0), np.cumsum(t * y, axis=0)
    mean = sum_y / np.where(n > 0, n, np.nan)
    spread = n * sum_tt - sum_t**2
    slope = (n * sum_ty - sum_t * sum_y) / np.where((n > 1) & (spread > 0), spread, np.nan)
    latest = np.maximum.accumulate(np.where(defined, np.arange(len(features))[:, None], -1), axis=0)
    last = np.where(latest >= 0, np.take_along_axis(features, np.maximum(latest, 0), axis=0), np.nan)
    return np.concatenate([mean, slope, last], axis=1)


def rank_features(
    positive: Float64[np.ndarray, "prompts_a summaries"], negative: Float64[np.ndarray, "prompts_b summaries"]
) -> pd.DataFrame:
    """Summaries by standardised effect, the largest |g| first: name, g, g_low, g_high, p, p_bh, status."""
    table = compare_groups(Groups(positive, negative, None, None)).table
    table.insert(0, "name", list(SUMMARIES))
    order = np.argsort(-table["g"].abs().fillna(-1).to_numpy(), kind="stable")
    kept = ["name", "g", "g_low", "g_high", "p", "p_bh", "status"]
    return table.iloc[order][kept].reset_index(drop=True)
