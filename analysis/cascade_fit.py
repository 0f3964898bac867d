"""The length over which layers move together: ``rho(delta) = A exp(-delta / tau)``, with its interval over prompts."""

from dataclasses import dataclass
from math import inf, nan
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

from analysis.inference import RESAMPLES, bootstrap_means, percentile_interval
from analysis.measured import Status

__all__ = ["Decay", "fit_decay", "fit_each"]

MIN_DISTANCES: Final = 3
SLOWEST: Final = 100.0
GRID: Final = 120
GOLDEN: Final = (5**0.5 - 1) / 2
ITERATIONS: Final = 48
FLAT: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Decay:
    """``tau`` in layers, with the 95 % bootstrap interval over ``n_prompts`` prompts (NaN for one prompt).

    An infinite tau is "no decay": the fit falls by less than 1 % over the whole depth. ``r2`` is that of the weighted
    fit, NaN where rho is constant. Fewer than 3 distances with rho > 0 is ``not_applicable``.
    """

    tau: float
    low: float
    high: float
    amplitude: float
    r2: float
    n_prompts: int
    status: Status

    @property
    def decays(self) -> bool:
        return self.tau < inf


def fit_decay(
    rho: Float64[np.ndarray, "prompts distances"],
    pairs: Int64[np.ndarray, " distances"],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Decay:
    """Fit the mean of ``rho`` over prompts at distances 1..L, weighted by ``pairs``, where that mean is positive.

    The amplitude is free. The interval resamples prompts, not pairs or tokens.
    """
    n = len(rho)
    if n == 0:
        return Decay(nan, nan, nan, nan, nan, 0, "not_applicable")
    weight = pairs.astype(np.float64)
    defined = np.isfinite(rho)
    mean = np.where(defined, rho, 0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)
    tau, amplitude, r2 = (float(value[0]) for value in fit_each(mean[None, :], weight))
    if np.isnan(tau):
        return Decay(nan, nan, nan, nan, nan, n, "not_applicable")
    low = high = nan
    if n > 1:
        draws = fit_each(bootstrap_means(rho, resamples, seed), weight)[0]
        ends = percentile_interval(draws[:, None])
        low, high = float(ends[0][0]), float(ends[1][0])
    return Decay(tau, low, high, amplitude, r2, n, "ok" if n > 1 else "low_confidence")


def fit_each(
    rho: Float64[np.ndarray, "curves distances"], weight: Float64[np.ndarray, " distances"]
) -> tuple[Float64[np.ndarray, " curves"], Float64[np.ndarray, " curves"], Float64[np.ndarray, " curves"]]:
    """tau, amplitude and R2 of every curve by weighted nonlinear least squares.

    For a given rate the best amplitude is known, so one number is searched: over a grid, then by golden section, all
    curves at once.
    """
    n_distances = rho.shape[1]
    distance = np.arange(1, n_distances + 1, dtype=np.float64)
    used = np.isfinite(rho) & (rho > 0) & (weight > 0)
    w = np.where(used, weight, 0.0)
    y = np.where(used, rho, 0.0)
    enough = used.sum(axis=1) >= MIN_DISTANCES
    slowest = 1 / (SLOWEST * max(n_distances, 1))
    grid = np.geomspace(slowest, 20.0, GRID)

    def explained(rate: Float64[np.ndarray, " curves"]) -> Float64[np.ndarray, " curves"]:
        shape = np.exp(-rate[:, None] * distance)
        square: Float64[np.ndarray, " curves"] = (w * y * shape).sum(axis=1) ** 2
        best: Float64[np.ndarray, " curves"] = square / np.maximum((w * shape**2).sum(axis=1), np.finfo(float).tiny)
        return best

    on_grid = np.exp(-grid[:, None] * distance)
    profile = ((w * y) @ on_grid.T) ** 2 / np.maximum(w @ (on_grid**2).T, np.finfo(float).tiny)
    best = profile.argmax(axis=1)
    low, high = np.log(grid[np.maximum(best - 1, 0)]), np.log(grid[np.minimum(best + 1, GRID - 1)])
    for _ in range(ITERATIONS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        lower = explained(np.exp(left)) >= explained(np.exp(right))
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    rate = np.exp((low + high) / 2)
    rate = np.where(best == 0, 0.0, rate)
    shape = np.exp(-rate[:, None] * distance)
    total_weight = np.where(enough, w.sum(axis=1), np.nan)
    amplitude = (w * y * shape).sum(axis=1) / np.where(enough, (w * shape**2).sum(axis=1), np.nan)
    residual = (w * (y - amplitude[:, None] * shape) ** 2).sum(axis=1)
    middle = (w * y).sum(axis=1) / total_weight
    total = (w * (y - middle[:, None]) ** 2).sum(axis=1)
    r2 = 1 - residual / np.where(total > FLAT * total_weight, total, np.nan)
    tau = np.where(enough, np.where(rate > 0, 1 / np.where(rate > 0, rate, 1), np.inf), np.nan)
    return tau, amplitude, r2
