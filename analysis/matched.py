"""Spectra at a matched number of tokens (core.md 1.2): alpha depends on n even for noise, so groups are compared at one n.

A prompt gives contiguous windows of n of its kept tokens, through the Gram trick of :mod:`analysis.windows`; a metric
is its mean over them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from analysis.alpha import Estimator, RankWindow, fit_spectrum
from analysis.measured import Measured, undefined
from analysis.preparation import prepare
from analysis.spectrum import Spectrum
from analysis.windows import MIN_WINDOW, window_spectra

__all__ = ["DRAWS", "alpha_of", "matched_alpha", "matched_spectra", "matched_starts", "mean_over_draws"]

DRAWS = 20


def matched_spectra(
    resid: Float[Tensor, "points tokens d_model"],
    n: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
    centred: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[list[Spectrum]]:
    """For each point, the spectra of ``draws`` windows of ``n`` neighbours among the kept tokens.

    Windows start at different tokens, the same at every point. Where fewer than ``draws`` starts exist all are taken, so
    a prompt of just ``n`` tokens has one window: itself. ``normed`` divides each row by its RMS. Raises ValueError for
    n below 5 or above the kept tokens.
    """
    kept = int(keep.sum())
    if not MIN_WINDOW <= n <= kept:
        raise ValueError(f"the matched length must be between {MIN_WINDOW} and the {kept} kept tokens, not {n}")
    starts = matched_starts(kept, n, draws, seed)
    everything = torch.ones(kept, dtype=torch.bool)
    return [
        window_spectra(prepare(one, keep, normed=normed, centre=False), starts, n, everything, centred=centred)
        for one in resid
    ]


def matched_starts(kept: int, n: int, draws: int = DRAWS, seed: int = 0) -> Int64[Tensor, " windows"]:
    """Where the windows of ``n`` of ``kept`` tokens begin: different ones, sorted; all where there are at most ``draws``."""
    possible = kept - n + 1
    chosen = np.random.default_rng(seed).choice(possible, size=min(draws, possible), replace=False)
    return torch.from_numpy(np.sort(chosen))


def mean_over_draws(spectra: Sequence[Spectrum], measure: Callable[[Spectrum], Measured]) -> Measured:
    """The mean of a metric over the windows of one point; ``n_used`` is the tokens of a window.

    Where some windows are undefined, or any has low confidence, so has the mean; where all are undefined it is too, with
    the status of the first.
    """
    values = [measure(spectrum) for spectrum in spectra]
    defined = [one.value for one in values if not np.isnan(one.value)]
    if not defined:
        return undefined(values[0].status, spectra[0].n)
    every = all(one.status == "ok" for one in values)
    return Measured(float(np.mean(defined)), spectra[0].n, "ok" if every else "low_confidence")


def alpha_of(window: RankWindow = "all", estimator: Estimator = "slope") -> Callable[[Spectrum], Measured]:
    """Alpha under one convention, as a metric of a spectrum."""

    def measure(spectrum: Spectrum) -> Measured:
        fit = fit_spectrum(spectrum, window, estimator)
        return Measured(fit.alpha, spectrum.n, fit.status)

    return measure


def matched_alpha(
    resid: Float[Tensor, "points tokens d_model"],
    n: int,
    keep: Bool[Tensor, " tokens"],
    *,
    normed: bool,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Measured]:
    """Alpha (all usable ranks) of each point at ``n`` tokens, the mean over the draws."""
    spectra = matched_spectra(resid, n, keep, normed=normed, draws=draws, seed=seed)
    return [mean_over_draws(point, alpha_of()) for point in spectra]
