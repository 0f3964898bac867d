"""Heavy-tail exponent of an eigenvalue distribution: maximum likelihood with x_min by the KS distance (core.md 1.4).

After Clauset, Shalizi and Newman 2009, as WeightWatcher does it. It describes the *density* of eigenvalues: where
``lambda_k ~ k**-a``, ``alpha_tail = 1 + 1/a``. It moves against the rank-plot alpha and never shares an axis with it.
"""

from dataclasses import dataclass
from math import erfc, nan, sqrt

import numpy as np
from jaxtyping import Float64
from scipy.optimize import minimize
from scipy.special import log_ndtr

from analysis.measured import Status

__all__ = ["MIN_TAIL", "MIN_VALUES", "WEIGHT_BAND", "TailComparison", "TailFit", "alpha_tail", "compare_tail"]

MIN_VALUES = 20
MIN_TAIL = 10
WEIGHT_BAND = (2.0, 6.0)
"""WeightWatcher's healthy band. It is a statement about weight matrices and says nothing about activations."""

BLOCK = 64


@dataclass(frozen=True, slots=True)
class TailFit:
    """``p(x) ~ x**-alpha`` for x >= xmin: exponent, standard error ``sigma``, KS distance, values in the tail."""

    alpha: float
    xmin: float
    ks: float
    n_tail: int
    sigma: float
    status: Status


@dataclass(frozen=True, slots=True)
class TailComparison:
    """Log-likelihood ratio of the power law against another tail (Vuong): positive favours the power law."""

    ratio: float
    p_value: float


def alpha_tail(eigenvalues: Float64[np.ndarray, " rank"], min_tail: int = MIN_TAIL) -> TailFit:
    """Fit the tail of positive eigenvalues in any order; at least ``min_tail`` of them stay in the tail.

    Fewer than 20 values, or all equal, is ``rank_deficient``. Raises ValueError for values that are not positive, which
    must be dropped as numerical zeros before, and for min_tail < 2.
    """
    if min_tail < 2:
        raise ValueError(f"min_tail must be at least 2, not {min_tail}")
    if eigenvalues.size and not eigenvalues.min() > 0:
        raise ValueError(f"eigenvalues must be positive, not {eigenvalues.min():g}")
    if eigenvalues.size < MIN_VALUES or eigenvalues.min() == eigenvalues.max():
        return TailFit(nan, nan, nan, 0, nan, "rank_deficient")
    values = np.sort(eigenvalues)
    logs = np.log(values)
    tails = np.arange(values.size, 0, -1)
    excess = np.cumsum(logs[::-1])[::-1] - tails * logs
    candidates = np.flatnonzero((excess > 0) & (tails >= min_tail))
    if candidates.size == 0:
        return TailFit(nan, nan, nan, 0, nan, "rank_deficient")
    slopes = tails[candidates] / excess[candidates]
    distances = _ks_distances(logs, candidates, slopes)
    best = int(np.argmin(distances))
    first, slope = int(candidates[best]), float(slopes[best])
    n_tail = int(tails[first])
    return TailFit(1 + slope, float(values[first]), float(distances[best]), n_tail, slope / sqrt(n_tail), "ok")


def compare_tail(eigenvalues: Float64[np.ndarray, " rank"], fit: TailFit) -> dict[str, TailComparison]:
    """The power law against the lognormal and the exponential on the tail of ``fit``, each truncated at x_min.

    Raises ValueError for a fit that is not ``ok``.
    """
    if fit.status != "ok":
        raise ValueError(f"there is no tail to compare: the fit is {fit.status}")
    tail = np.sort(eigenvalues[eigenvalues >= fit.xmin])
    power_law = np.log((fit.alpha - 1) / fit.xmin) - fit.alpha * np.log(tail / fit.xmin)
    rate = 1 / (tail.mean() - fit.xmin)
    exponential = np.log(rate) - rate * (tail - fit.xmin)
    return {
        "lognormal": _vuong(power_law - _lognormal(tail, fit.xmin)),
        "exponential": _vuong(power_law - exponential),
    }


def _ks_distances(
    logs: Float64[np.ndarray, " rank"], candidates: np.ndarray, slopes: Float64[np.ndarray, " candidates"]
) -> Float64[np.ndarray, " candidates"]:
    """``max_j |1 - (x_j / x_min)**(1 - alpha) - j / n_t|``, j from 0, of every candidate x_min, in blocks of them."""
    distances = np.empty(candidates.size)
    for start in range(0, candidates.size, BLOCK):
        block = slice(start, start + BLOCK)
        first, slope = candidates[block, None], slopes[block, None]
        ranks = np.arange(candidates[start], logs.size)[None, :]
        with np.errstate(over="ignore"):  # values below x_min may overflow; they are masked out
            fitted = 1 - np.exp(-slope * (logs[ranks] - logs[first]))
        gaps = np.abs(fitted - (ranks - first) / (logs.size - first))
        distances[block] = np.where(ranks >= first, gaps, 0).max(axis=1)
    return distances


def _lognormal(tail: Float64[np.ndarray, " tail"], xmin: float) -> Float64[np.ndarray, " tail"]:
    """Pointwise log-likelihood of the maximum-likelihood lognormal truncated at ``xmin``."""
    logs, floor = np.log(tail), float(np.log(xmin))

    def likelihoods(theta: np.ndarray) -> Float64[np.ndarray, " tail"]:
        mu, sd = float(theta[0]), float(np.exp(theta[1]))
        density = -0.5 * ((logs - mu) / sd) ** 2 - logs - np.log(sd * sqrt(2 * np.pi))
        return np.asarray(density - log_ndtr((mu - floor) / sd))

    start = np.array([logs.mean(), np.log(logs.std())])
    best = minimize(
        lambda theta: -likelihoods(theta).sum(), start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-8}
    )
    return likelihoods(best.x)


def _vuong(differences: Float64[np.ndarray, " tail"]) -> TailComparison:
    spread = float(differences.std())
    total = float(differences.sum())
    if spread == 0:
        return TailComparison(total, nan)
    return TailComparison(total, erfc(abs(total) / (spread * sqrt(2 * differences.size))))
