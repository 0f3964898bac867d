"""Spectral alpha: the slope of the rank plot of singular values, and what tells whether a slope means anything.

``s_k ~ k**-alpha`` is fitted by least squares of ln s on ln k (core.md 1.2, after arXiv 2604.15350 section 3.1). On
eigenvalues the same fit gives exactly twice the number; Stringer 2019 and alpha-ReQ report that one (core.md 1.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, log, nan, sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from analysis.measured import Measured, Status, undefined
from analysis.spectrum import Spectrum

__all__ = [
    "ESTIMATORS",
    "WINDOWS",
    "Curvature",
    "Estimator",
    "RankFit",
    "RankWindow",
    "alpha_rank",
    "curvature",
    "fit_spectrum",
    "local_slopes",
    "rank_window",
]

RankWindow = Literal["all", "11_100", "11_500", "lowrank"]
Estimator = Literal["slope", "weighted"]

WINDOWS: Mapping[RankWindow, str] = MappingProxyType(
    {
        "all": "all usable ranks",
        "11_100": "ranks 11-100 (alpha-ReQ)",
        "11_500": "ranks 11-500 (Stringer 2019)",
        "lowrank": "ranks up to half of the usable ones",
    }
)
ESTIMATORS: Mapping[Estimator, str] = MappingProxyType(
    {"slope": "unweighted slope", "weighted": "slope weighted by 1/k"}
)

MIN_VALUES = 4
CONFIDENT_VALUES = 10
SHORTENED_FROM = 40
OCTAVE_SIDE = sqrt(2)
FLAT = 1e-24  # variance of ln s that is rounding alone: a flat spectrum has no R2


@dataclass(frozen=True, slots=True)
class RankFit:
    """``ln s_k = intercept - alpha ln k`` over ranks kmin..kmax; NaN with a status where there is no fit.

    ``r2`` is 1 - SSres/SStot with the weights of the fit, NaN for a flat spectrum. ``n_used`` counts singular values.
    """

    alpha: float
    intercept: float
    r2: float
    kmin: int
    kmax: int
    n_used: int
    status: Status

    @property
    def alpha_lambda(self) -> float:
        """The exponent of the eigenvalues over the same ranks."""
        return 2 * self.alpha

    def predict(self, k: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        """The fitted singular values at ranks ``k``."""
        fitted: Float64[np.ndarray, " k"] = np.exp(self.intercept - self.alpha * np.log(k))
        return fitted


@dataclass(frozen=True, slots=True)
class Curvature:
    """The quadratic coefficient of ln s on ln k with its 95 % interval, and how far the slope moves over the window.

    The interval is the ordinary least-squares one. Residuals of a rank plot are correlated, so it is too narrow: that
    is why a curve counts as curved only if its slope also changes by more than half of alpha (decision 4).
    """

    value: Measured
    low: float = nan
    high: float = nan
    slope_change: float = nan

    @property
    def curved(self) -> bool:
        """The badge: the interval excludes 0 and the slope changes by more than half over the window."""
        return bool((self.low > 0 or self.high < 0) and self.slope_change > 0.5)


def rank_window(window: RankWindow, rank: int) -> tuple[int, int] | None:
    """First and last rank (1-based, inclusive) of a named window for ``rank`` usable values, None if it has no place.

    alpha-ReQ's 11-100 needs 110 values, so that the last tail stays out; from 40 on it is shortened to 90 % of them.
    Stringer's 11-500 ends two ranks before the last.
    """
    if window == "all":
        return (1, rank) if rank else None
    if window == "lowrank":
        return (1, ceil(rank / 2)) if rank else None
    if rank < SHORTENED_FROM:
        return None
    if window == "11_500":
        return (11, min(500, rank - 2))
    return (11, 100) if rank >= 110 else (11, floor(0.9 * rank))


def alpha_rank(
    s: Float64[np.ndarray, " rank"],
    kmin: int = 1,
    kmax: int | None = None,
    weights: Float64[np.ndarray, " window"] | None = None,
) -> RankFit:
    """Fit ranks kmin..kmax of descending singular values; ``weights`` multiply the squared residuals.

    Fewer than 4 values is ``rank_deficient``, fewer than 10 ``low_confidence``. Raises ValueError for values that are
    not positive (numerical zeros must not enter a fit in logarithms) and for a window outside 1..rank.
    """
    last = s.size if kmax is None else kmax
    if s.size and s.min() <= 0:
        raise ValueError(f"singular values must be positive for a fit in logarithms, not {s.min():g}")
    if kmin < 1 or last > s.size:
        raise ValueError(f"ranks {kmin}..{last} are outside 1..{s.size}")
    n = last - kmin + 1
    if n < MIN_VALUES:
        return RankFit(nan, nan, nan, kmin, last, max(n, 0), "rank_deficient")
    x, y = np.log(np.arange(kmin, last + 1, dtype=np.float64)), np.log(s[kmin - 1 : last])
    w = np.full(n, 1 / n) if weights is None else weights / weights.sum()
    dx, dy = x - w @ x, y - w @ y
    slope = float(w @ (dx * dy) / (w @ dx**2))
    total = float(w @ dy**2)
    r2 = 1 - float(w @ (dy - slope * dx) ** 2) / total if total > FLAT else nan
    status: Status = "low_confidence" if n < CONFIDENT_VALUES else "ok"
    return RankFit(-slope, float(w @ y - slope * (w @ x)), r2, kmin, last, n, status)


def fit_spectrum(spectrum: Spectrum, window: RankWindow = "all", estimator: Estimator = "slope") -> RankFit:
    """Alpha of a spectrum over a named window; its own status where there is no spectrum.

    Too few tokens for 4 values is ``too_few_tokens``; a window the spectrum is too short for is ``not_applicable``; a
    shortened 11-100 window is ``low_confidence``.
    """
    if spectrum.status != "ok":
        return _no_fit(spectrum.status)
    if spectrum.n - spectrum.centred < MIN_VALUES:
        return _no_fit("too_few_tokens")
    bounds = rank_window(window, spectrum.rank)
    if bounds is None:
        return _no_fit("not_applicable")
    kmin, kmax = bounds
    weights = 1 / np.arange(kmin, kmax + 1, dtype=np.float64) if estimator == "weighted" else None
    fit = alpha_rank(spectrum.s, kmin, kmax, weights)
    if window == "11_100" and fit.status == "ok" and kmax < 100:
        return replace(fit, status="low_confidence")
    return fit


def curvature(s: Float64[np.ndarray, " rank"], kmin: int = 1, kmax: int | None = None) -> Curvature:
    """The quadratic term of the log-log fit over ranks kmin..kmax; undefined below 5 values."""
    last = s.size if kmax is None else kmax
    n = last - kmin + 1
    if n < MIN_VALUES + 1:
        return Curvature(undefined("rank_deficient", max(n, 0)))
    x, y = np.log(np.arange(kmin, last + 1, dtype=np.float64)), np.log(s[kmin - 1 : last])
    linear = x - x.mean()
    quadratic = linear**2 - np.mean(linear**2)
    quadratic -= linear * (linear @ quadratic) / (linear @ linear)  # orthogonal to the line: its error stands alone
    dy = y - y.mean()
    slope = float(linear @ dy / (linear @ linear))
    bend = float(quadratic @ dy / (quadratic @ quadratic))
    residual = dy - slope * linear - bend * quadratic
    error = sqrt(float(residual @ residual) / (n - 3) / float(quadratic @ quadratic))
    half = float(stats.t.ppf(0.975, n - 3)) * error
    change = abs(2 * bend * log(last / kmin) / slope) if slope else nan
    value = Measured(bend, n, "low_confidence" if n < CONFIDENT_VALUES else "ok")
    return Curvature(value, bend - half, bend + half, change)


def local_slopes(
    s: Float64[np.ndarray, " rank"],
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Alpha in a window of one octave around each rank, for every rank whose octave lies inside the spectrum.

    A power law is a horizontal line here, whatever the R2 of its global fit. Returns (ranks, slopes).
    """
    k = np.arange(1, s.size + 1)
    first, last = np.ceil(k / OCTAVE_SIDE).astype(np.int64), np.floor(k * OCTAVE_SIDE).astype(np.int64)
    inside = (last <= s.size) & (last - first + 1 >= MIN_VALUES)
    k, first, last = k[inside], first[inside], last[inside]
    x, y = np.log(np.arange(1, s.size + 1, dtype=np.float64)), np.log(s)
    count = last - first + 1
    x_sum, y_sum, xx, xy = (_range_sums(v, first, last) for v in (x, y, x * x, x * y))
    return k, -(xy - x_sum * y_sum / count) / (xx - x_sum**2 / count)


def _range_sums(
    values: Float64[np.ndarray, " rank"], first: Int64[np.ndarray, " k"], last: Int64[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Sums of ``values`` over the 1-based ranks first..last."""
    cumulative = np.concatenate([np.zeros(1), np.cumsum(values)])
    sums: Float64[np.ndarray, " k"] = cumulative[last] - cumulative[first - 1]
    return sums


def _no_fit(status: Status) -> RankFit:
    return RankFit(nan, nan, nan, 0, 0, 0, status)
