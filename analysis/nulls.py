"""Null spectra: what alpha and the leading eigenvalues would be without any structure across columns (decisions 3, 5).

The first null permutes each column of the prepared matrix independently over tokens: the distribution of every
dimension stays, including a massive one; only their co-variation goes. The second, weaker one is iid Gaussian: it knows
nothing but the shape, and says how much of an alpha is aspect ratio alone. A null is shown beside a number and never
subtracted from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import nan

import numpy as np
import torch
from jaxtyping import Float64
from scipy import stats
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from analysis.alpha import fit_spectrum
from analysis.measured import Status
from analysis.spectrum import Spectrum, spectra, spectrum

__all__ = ["DRAWS", "LEVEL", "GaussianNull", "PermutedNull", "gaussian_null", "permuted_null"]

DRAWS = 8
LEVEL = 0.99
POOLED_RANKS = 9


@dataclass(frozen=True, slots=True)
class GaussianNull:
    """Alpha (all usable ranks) of iid Gaussian matrices of one shape: mean and sd over draws."""

    alpha: float
    alpha_sd: float
    draws: int


@dataclass(frozen=True, slots=True, eq=False)
class PermutedNull:
    """The column-permuted null of one matrix.

    ``s`` is the mean permuted spectrum by rank, ``s_low`` and ``s_high`` its range over the draws, ``s_level`` the 99 %
    level of the permuted singular values by rank. ``n_parallel`` counts the leading directions of the data above that
    level (parallel analysis, Horn 1965), None where it is undefined. Alphas are fitted on all usable ranks.
    """

    alpha: float
    alpha_sd: float
    s: Float64[np.ndarray, " rank"]
    s_low: Float64[np.ndarray, " rank"]
    s_high: Float64[np.ndarray, " rank"]
    s_level: Float64[np.ndarray, " rank"]
    n_parallel: int | None
    draws: int
    status: Status


@lru_cache(maxsize=512)
def gaussian_null(n: int, d: int, draws: int = DRAWS, seed: int = 0, *, centred: bool = True) -> GaussianNull:
    """Alpha of ``draws`` iid Gaussian ``n x d`` matrices. Raises ValueError below 4 singular values."""
    if n < 4 + centred:
        raise ValueError(f"a Gaussian null needs at least {4 + centred} tokens, not {n}")
    generator = torch.Generator().manual_seed(seed)
    alphas = []
    for _ in range(draws):
        x = torch.randn(n, d, generator=generator, dtype=torch.float64)
        observed = spectrum(x - x.mean(dim=0) if centred else x, centred=centred)
        alphas.append(fit_spectrum(observed).alpha)
    return GaussianNull(float(np.mean(alphas)), _sd(alphas), draws)


def permuted_null(x: Float64[Tensor, "n d"], observed: Spectrum, *, draws: int = DRAWS, seed: int = 0) -> PermutedNull:
    """The null of a prepared matrix ``x`` whose spectrum is ``observed``; the same seed gives the same permutations.

    The 99 % level of a rank is that of a further draw, normal with the relative variance of the neighbouring ranks: the
    largest of 8 draws would only be an 89 % level. Raises ValueError for fewer than 2 draws.
    """
    if draws < 2:
        raise ValueError(f"a permuted null needs at least 2 draws, not {draws}")
    if observed.status != "ok":
        empty = np.zeros(0)
        return PermutedNull(nan, nan, empty, empty, empty, empty, None, draws, observed.status)
    nulls = spectra(_permuted(x, draws, seed), centred=observed.centred)
    fits = [fit_spectrum(null) for null in nulls]
    status = fits[0].status
    alphas = [fit.alpha for fit in fits]
    curves = _stack(nulls)
    level = _level(curves**2)
    return PermutedNull(
        alpha=float(np.mean(alphas)),
        alpha_sd=_sd(alphas),
        s=curves.mean(axis=0),
        s_low=curves.min(axis=0),
        s_high=curves.max(axis=0),
        s_level=np.sqrt(level),
        n_parallel=_leading_above(observed.s**2, level),
        draws=draws,
        status=status,
    )


def _permuted(x: Float64[Tensor, "n d"], draws: int, seed: int) -> Iterator[Float64[Tensor, "n d"]]:
    rng = np.random.default_rng(seed)
    columns = np.ascontiguousarray(x.cpu().numpy().T)
    for _ in range(draws):
        yield torch.from_numpy(rng.permuted(columns, axis=1)).T.to(x.device)


def _leading_above(eigenvalues: Float64[np.ndarray, " a"], level: Float64[np.ndarray, " b"]) -> int:
    """How many leading eigenvalues stand above the level of their rank, up to the first that does not."""
    shared = min(eigenvalues.size, level.size)
    below = np.flatnonzero(eigenvalues[:shared] <= level[:shared])
    return int(below[0]) if below.size else shared


def _level(eigenvalues: Float64[np.ndarray, "draws rank"]) -> Float64[np.ndarray, " rank"]:
    """The 99 % level by rank. Pooling the variance over 9 ranks makes 8 draws agree with the quantile of 400."""
    draws, mean = eigenvalues.shape[0], eigenvalues.mean(axis=0)
    relative = uniform_filter1d(eigenvalues.var(axis=0, ddof=1) / mean**2, POOLED_RANKS, mode="nearest")
    level: Float64[np.ndarray, " rank"] = mean * (1 + stats.norm.ppf(LEVEL) * np.sqrt(relative * (1 + 1 / draws)))
    return level


def _stack(nulls: list[Spectrum]) -> Float64[np.ndarray, "draws rank"]:
    """The draws' singular values by rank, cut to the rank every draw reaches."""
    rank = min(null.rank for null in nulls)
    return np.stack([null.s[:rank] for null in nulls])


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1))
