"""Marchenko-Pastur reference for the eigenvalues of column-standardised hidden states (core.md 1.8).

It describes an ``n x d`` matrix of *independent* entries. Columns of activations are correlated, so the law is a
reference curve here, rarely a fit; "directions above noise" are counted by :mod:`analysis.nulls` instead.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import nan, pi, sqrt

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from analysis.measured import Status
from analysis.spectrum import gram, usable

__all__ = ["MPFit", "covariance_eigenvalues", "mp_cdf", "mp_density", "mp_edges", "mp_fit", "mp_median", "tw_threshold"]

MIN_TOKENS = 32
MIN_VALUES = 20
KL_BINS = 50
GRID = 4096
TW_99 = 2.02
"""The Tracy-Widom (beta = 1) level used for outliers, in units of Johnstone's scale: 99 %; 0.98 would be 95 %."""


@dataclass(frozen=True, slots=True)
class MPFit:
    """A Marchenko-Pastur law fitted to eigenvalues by its median.

    gamma = d / n, ``lower`` and ``upper`` the edges of the bulk, ``threshold`` the 99 % Tracy-Widom margin above which
    an eigenvalue is one of ``n_outliers``; ``ks`` and ``kl`` the distance of the bulk from the law (KL over 50 bins of
    equal mass, NaN within 5 % of gamma = 1, where the lower edge is 0); ``bulk_fraction`` the share of eigenvalues
    between the edges; ``soft_rank`` = upper / lambda_1.
    """

    n_used: int
    status: Status
    gamma: float = nan
    sigma2: float = nan
    lower: float = nan
    upper: float = nan
    threshold: float = nan
    n_outliers: int = 0
    ks: float = nan
    kl: float = nan
    bulk_fraction: float = nan
    soft_rank: float = nan


def covariance_eigenvalues(
    x: Float64[Tensor, "n d"], *, standardise: bool = True
) -> tuple[Float64[np.ndarray, " rank"], int]:
    """Usable eigenvalues (descending) of ``x^T x / n`` for centred columns, and the number of columns that entered.

    ``standardise`` divides each column by its standard deviation; constant columns have none and are left out. A matrix
    with non-finite entries or fewer than 2 rows has no eigenvalues.
    """
    n = x.shape[0]
    if n < 2 or not bool(torch.isfinite(x).all()):
        return np.zeros(0), x.shape[1]
    if standardise:
        sd = x.square().mean(dim=0).sqrt()
        x = x[:, sd > 0] / sd[sd > 0]
    if x.shape[1] == 0:
        return np.zeros(0), 0
    values = torch.linalg.eigvalsh(gram(x)).flip(0).cpu().numpy() / n
    return usable(values, *x.shape, centred=True), x.shape[1]


def mp_edges(gamma: float, sigma2: float = 1.0) -> tuple[float, float]:
    """The edges ``sigma2 (1 -+ sqrt(gamma))**2`` of the bulk."""
    return sigma2 * (1 - sqrt(gamma)) ** 2, sigma2 * (1 + sqrt(gamma)) ** 2


def mp_density(x: Float64[np.ndarray, " x"], gamma: float, sigma2: float = 1.0) -> Float64[np.ndarray, " x"]:
    """Density of the *non-zero* eigenvalues: integrates to 1 for every gamma (for gamma > 1 the rest sit at 0)."""
    lower, upper = mp_edges(gamma, sigma2)
    inside = (x > lower) & (x < upper)
    safe = np.where(inside, x, upper)
    density = np.sqrt((upper - safe) * (safe - lower)) / (2 * pi * gamma * sigma2 * safe)
    return np.asarray(np.where(inside, density * max(gamma, 1.0), 0.0))


def mp_cdf(x: Float64[np.ndarray, " x"], gamma: float, sigma2: float = 1.0) -> Float64[np.ndarray, " x"]:
    """Distribution function of the non-zero eigenvalues."""
    grid, cumulative = _unit_cdf(gamma)
    return np.asarray(np.interp(x / sigma2, grid, cumulative))


def mp_median(gamma: float) -> float:
    """Median of the non-zero eigenvalues at unit variance."""
    grid, cumulative = _unit_cdf(gamma)
    return float(np.interp(0.5, cumulative, grid))


def tw_threshold(n: int, d: int, sigma2: float = 1.0) -> float:
    """The 99 % level of the largest eigenvalue of noise: Johnstone 2001 centring and scaling, Tracy-Widom law."""
    a, b = sqrt(n - 1), sqrt(d)
    centre, scale = (a + b) ** 2 / n, (a + b) * (1 / a + 1 / b) ** (1 / 3) / n
    return float(sigma2 * (centre + TW_99 * scale))


def mp_fit(eigenvalues: Float64[np.ndarray, " rank"], n: int, d: int) -> MPFit:
    """Match the median of the non-zero eigenvalues, drop the outliers, match once more.

    ``not_applicable`` below 32 tokens or 20 eigenvalues.
    """
    if n < MIN_TOKENS or eigenvalues.size < MIN_VALUES:
        return MPFit(int(eigenvalues.size), "not_applicable")
    gamma, median = d / n, mp_median(d / n)
    sigma2 = float(np.median(eigenvalues)) / median
    bulk = eigenvalues[eigenvalues <= tw_threshold(n, d, sigma2)]
    sigma2 = float(np.median(bulk)) / median
    lower, upper = mp_edges(gamma, sigma2)
    threshold = tw_threshold(n, d, sigma2)
    between = np.sort(eigenvalues[(eigenvalues > lower) & (eigenvalues < upper)])
    ks, kl = _deviation(between, gamma, sigma2)
    return MPFit(
        n_used=int(eigenvalues.size),
        status="ok",
        gamma=gamma,
        sigma2=sigma2,
        lower=lower,
        upper=upper,
        threshold=threshold,
        n_outliers=int((eigenvalues > threshold).sum()),
        ks=ks,
        kl=nan if abs(gamma - 1) <= 0.05 else kl,
        bulk_fraction=between.size / eigenvalues.size,
        soft_rank=upper / float(eigenvalues.max()),
    )


def _deviation(between: Float64[np.ndarray, " bulk"], gamma: float, sigma2: float) -> tuple[float, float]:
    """KS distance and KL divergence of sorted bulk eigenvalues from the law; NaN without any."""
    if between.size == 0:
        return nan, nan
    law = mp_cdf(between, gamma, sigma2)
    steps = np.arange(between.size + 1) / between.size
    ks = float(max(np.abs(law - steps[:-1]).max(), np.abs(law - steps[1:]).max()))
    share = np.histogram(law, bins=KL_BINS, range=(0.0, 1.0))[0] / between.size
    filled = share[share > 0]
    return ks, float((filled * np.log(filled * KL_BINS)).sum())


@lru_cache(maxsize=256)
def _unit_cdf(gamma: float) -> tuple[Float64[np.ndarray, " grid"], Float64[np.ndarray, " grid"]]:
    """Grid and distribution function at unit variance; with x = centre + half cos(t) the integrand has no root."""
    lower, upper = mp_edges(gamma)
    half = (upper - lower) / 2
    t = np.linspace(pi, 0, GRID + 1)
    grid = (upper + lower) / 2 + half * np.cos(t)
    middle = (t[:-1] + t[1:]) / 2
    x = (upper + lower) / 2 + half * np.cos(middle)
    mass = half**2 * np.sin(middle) ** 2 / (2 * pi * gamma * x) * max(gamma, 1.0) * (pi / GRID)
    cumulative = np.concatenate([np.zeros(1), np.cumsum(mass)])
    return grid, cumulative / cumulative[-1]
