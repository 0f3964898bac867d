"""Intrinsic dimension of the tokens of a text: TwoNN, GRIDE by scale, and LLM-Microscope's preset (core.md 5, 6.1).

All three read ratios of distances to near neighbours. They underestimate high dimensions: of 1,000 Gaussian points in 20
dimensions TwoNN finds 16.5.
"""

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq

from analysis.measured import Measured, Status, undefined
from analysis.neighbours import Distances, nearest

__all__ = ["PLATEAU", "SCALES", "Scale", "gride", "gride_plateau", "microscope", "twonn", "twonn_mle"]

SCALES = (1, 2, 4, 8, 16, 32, 64)
PLATEAU = (2, 4)
"""Scales whose mean stands for GRIDE where one number is shown."""
_LOWEST, _HIGHEST = 1e-3, 1e4
_REDUCTION = 5
_TIED = 1e-8


@dataclass(frozen=True, slots=True)
class Scale:
    """GRIDE at one scale k: ``dimension`` from the ratio of the distances to neighbours 2k and k.

    ``error`` is the standard error of the likelihood (Fisher information), which takes the points for independent;
    neighbourhoods overlap, so it is too small, the more so the larger k. ``distance`` is the mean of both distances.
    """

    k: int
    dimension: Measured
    error: float = nan
    distance: float = nan


def twonn(found: Distances, fraction: float = 0.9) -> Measured:
    """TwoNN (Facco et al. 2017) as DADApy fits it: slope through the origin of -ln(1 - i/N) on ln(r2/r1), the largest
    ratios (a tenth of the points, by default) left out. Raises ValueError for a fraction outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of ratios must be above 0 and at most 1, not {fraction}")
    if not _defined(found):
        return undefined(found.status, found.n_used)
    ratios = _log_ratios(found, 1)
    n = len(ratios)
    used = min(int(n * fraction), n - 1)  # the last point has F = 1
    x = np.sort(ratios)[:used]
    return _slope(x, -np.log1p(-np.arange(1, used + 1) / n), found)


def twonn_mle(found: Distances) -> Measured:
    """TwoNN by maximum likelihood: (N - 1) / sum ln(r2/r1). GRIDE at k = 1 is the same number."""
    if not _defined(found):
        return undefined(found.status, found.n_used)
    total = float(_log_ratios(found, 1).sum())
    return _measured((found.n_used - 1) / total, found) if total > 0 else undefined("rank_deficient", found.n_used)


def microscope(found: Distances) -> Measured:
    """The preset of LLM-Microscope (Razzhigaev et al. 2024): TwoNN's slope through the lowest fifth of the ratios only.

    Ratios of at most 1 + 1e-8 are dropped, and count as the lowest in the distribution function. Noisier than
    :func:`twonn`: the fifth with the least spread decides.
    """
    if not _defined(found):
        return undefined(found.status, found.n_used)
    ratios = np.sort(_log_ratios(found, 1))
    dropped = int((ratios <= np.log1p(_TIED)).sum())
    kept = ratios[dropped:]
    used = min(len(kept) // _REDUCTION, len(kept) - 1)
    if used < 1:
        return undefined("rank_deficient", found.n_used)
    share = np.arange(1 + dropped, used + 1 + dropped) / found.n_used
    return _slope(kept[:used], -np.log1p(-share), found)


def gride(found: Distances, scales: tuple[int, ...] = SCALES) -> tuple[Scale, ...]:
    """Generalised ratios (Denti et al. 2022) at each scale k, by maximum likelihood of mu = r_2k / r_k.

    With f(mu) proportional to (mu^d - 1)^(k-1) / mu^((2k-1)d + 1), the root of (N - 1)/d = sum ln mu [(2k - 1) - (k - 1) /
    (1 - mu^-d)], as DADApy's ``return_id_scaling_gride``. A scale with 2k > N - 1 is ``too_few_tokens``.
    """
    if not _defined(found):
        return tuple(Scale(k, undefined(found.status, found.n_used)) for k in scales)
    fitting = [k for k in scales if 2 * k <= found.n_used - 1]
    ordered = nearest(found, 2 * max(fitting)).cpu().numpy() if fitting else np.zeros((found.n_used, 0))
    return tuple(
        _at_scale(ordered[:, k - 1], ordered[:, 2 * k - 1], k, found)
        if k in fitting
        else Scale(k, undefined("too_few_tokens", found.n_used))
        for k in scales
    )


def gride_plateau(scales: tuple[Scale, ...]) -> Scale:
    """The mean over the scales of `PLATEAU`, where curves of residual streams are flattest; k is the first of them.

    Its error is the mean error: the scales share their points. Raises KeyError for scales that lack one of them.
    """
    by_k = {scale.k: scale for scale in scales}
    chosen = [by_k[k] for k in PLATEAU]
    for scale in chosen:
        if scale.dimension.status not in ("ok", "low_confidence"):
            return Scale(PLATEAU[0], scale.dimension)
    value = float(np.mean([scale.dimension.value for scale in chosen]))
    first = chosen[0].dimension
    error, distance = (float(np.mean([getattr(scale, name) for scale in chosen])) for name in ("error", "distance"))
    return Scale(PLATEAU[0], Measured(value, first.n_used, first.status), error, distance)


def _at_scale(near: Float64[np.ndarray, " n"], far: Float64[np.ndarray, " n"], k: int, found: Distances) -> Scale:
    logs = np.log(far / near)
    if not logs.sum() > 0:
        return Scale(k, undefined("rank_deficient", found.n_used))
    n = len(logs)

    def slope(d: float) -> float:
        """Derivative of the log-likelihood in d."""
        return (n - 1) / d - float(((2 * k - 1) * logs - (k - 1) * _over_one_less(logs, d)).sum())

    if slope(_LOWEST) < 0 or slope(_HIGHEST) > 0:
        return Scale(k, undefined("not_applicable", found.n_used))
    d = float(brentq(slope, _LOWEST, _HIGHEST, xtol=1e-10))
    spread = _over_one_less(logs, d) ** 2 * np.exp(-d * logs)
    information = n / d**2 + (k - 1) * float(spread.sum())
    return Scale(k, _measured(d, found), 1 / sqrt(information), float((near + far).mean() / 2))


def _over_one_less(logs: Float64[np.ndarray, " n"], d: float) -> Float64[np.ndarray, " n"]:
    """ln mu / (1 - mu^-d), and its limit 1/d where mu is 1."""
    tied = logs == 0
    below = np.where(tied, 1.0, -np.expm1(-d * logs))
    return np.where(tied, 1 / d, logs / below)


def _log_ratios(found: Distances, k: int) -> Float64[np.ndarray, " n"]:
    ordered = nearest(found, 2 * k).cpu().numpy()
    ratios: np.ndarray = np.log(ordered[:, 2 * k - 1] / ordered[:, k - 1])
    return ratios


def _slope(x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], found: Distances) -> Measured:
    """Least squares through the origin."""
    energy = float((x * x).sum())
    return _measured(float((x * y).sum()) / energy, found) if energy > 0 else undefined("rank_deficient", found.n_used)


def _measured(value: float, found: Distances) -> Measured:
    return Measured(value, found.n_used, found.status)


def _defined(found: Distances) -> bool:
    usable: tuple[Status, ...] = ("ok", "low_confidence")
    return found.status in usable
