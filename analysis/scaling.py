"""A number of several models against their size: a line on ln N, with how little few models say (core.md 1.6)."""

from dataclasses import dataclass
from math import nan

import numpy as np
from jaxtyping import Float64
from scipy import stats

from analysis.inference import LEVEL
from analysis.measured import Status

__all__ = ["MIN_FOR_P", "MIN_MODELS", "ScalingFit", "scaling_fit"]

MIN_MODELS = 3
MIN_FOR_P = 5


@dataclass(frozen=True, slots=True)
class ScalingFit:
    """``y = intercept + slope ln N`` by ordinary least squares over ``n_models`` models.

    ``low`` and ``high`` are the 95 % interval of the slope (t with n - 2 degrees of freedom: with 3 models it is 13
    standard errors to each side). ``p`` of the slope is NaN below 5 models. ``status``: fewer than 3 models is
    ``not_applicable``, models of one size ``rank_deficient``, fewer than 5 ``low_confidence``.
    """

    slope: float
    low: float
    high: float
    intercept: float
    r2: float
    p: float
    n_models: int
    status: Status


def scaling_fit(n_parameters: Float64[np.ndarray, " models"], y: Float64[np.ndarray, " models"]) -> ScalingFit:
    """Fit the models whose ``y`` is defined. Raises ValueError for a number of parameters that is not positive."""
    if (n_parameters <= 0).any():
        raise ValueError(f"a model's number of parameters must be positive, not {n_parameters.min():g}")
    defined = np.isfinite(y)
    x, y = np.log(n_parameters[defined]), y[defined]
    n = int(x.size)
    if n < MIN_MODELS or np.ptp(x) == 0:
        return ScalingFit(nan, nan, nan, nan, nan, nan, n, "not_applicable" if n < MIN_MODELS else "rank_deficient")
    line = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 2)) * float(line.stderr)
    slope = float(line.slope)
    return ScalingFit(
        slope=slope,
        low=slope - half,
        high=slope + half,
        intercept=float(line.intercept),
        r2=float(line.rvalue) ** 2 if np.ptp(y) > 0 else nan,
        p=float(line.pvalue) if n >= MIN_FOR_P else nan,
        n_models=n,
        status="ok" if n >= MIN_FOR_P else "low_confidence",
    )
