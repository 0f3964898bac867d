"""The same prompts measured twice, layer by layer: another model, another order of tokens, a prompt and its response."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy import stats

from analysis.inference import (
    LEVEL,
    MIN_CONFIDENT,
    benjamini_hochberg,
    bootstrap_means,
    complete_mean,
    percentile_interval,
)

__all__ = ["PairedComparison", "compare_paired"]


@dataclass(frozen=True, eq=False)
class PairedComparison:
    """Second measurement less the first, over prompts.

    ``table`` has a row a layer: n (prompts with both values), mean_first and mean_second with their 95 % bootstrap
    bands (low_first, high_first, low_second, high_second), difference with low and high (95 % interval of the paired t,
    which excludes 0 exactly where p < .05), sd (of the differences), t, p, p_bh (over layers), status. ``overall`` is
    the same row for each prompt's mean over the ``n_layers`` layers defined in all prompts; its p_bh is its p.
    """

    table: pd.DataFrame
    overall: pd.Series
    n_layers: int

    @property
    def exploratory(self) -> bool:
        """Fewer than 20 prompts."""
        return bool(self.overall["n"] < MIN_CONFIDENT)


def compare_paired(
    first: Float64[np.ndarray, "prompts layers"], second: Float64[np.ndarray, "_ _"], *, seed: int = 0
) -> PairedComparison:
    """Compare row by row; a prompt counts at a layer where both of its values are defined.

    Fewer than 2 such prompts is ``too_few_prompts``, fewer than 20 ``low_confidence``; differences that are all equal
    have no t and are ``rank_deficient``. Raises ValueError for arrays of other shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"both measurements need the same prompts and layers, not {first.shape} and {second.shape}")
    (mean_first, mean_second), n_layers = complete_mean(first, second)
    overall = _rows(mean_first, mean_second, seed).iloc[0].drop("layer")
    return PairedComparison(_rows(first, second, seed), overall, n_layers)


def _rows(
    first: Float64[np.ndarray, "prompts layers"], second: Float64[np.ndarray, "prompts layers"], seed: int
) -> pd.DataFrame:
    both = np.isfinite(first) & np.isfinite(second)
    n = both.sum(axis=0)
    columns: dict[str, np.ndarray] = {"layer": np.arange(first.shape[1]), "n": n}
    for name, values in (("first", first), ("second", second)):
        own = np.where(both, values, np.nan)
        columns[f"mean_{name}"] = _mean(own, n)
        columns[f"low_{name}"], columns[f"high_{name}"] = percentile_interval(bootstrap_means(own, seed=seed))
    gaps = np.where(both, second, np.nan) - np.where(both, first, np.nan)
    difference = _mean(gaps, n)
    squares = np.where(both, gaps - difference, 0) ** 2
    variance = squares.sum(axis=0) / np.where(n > 1, n - 1, np.nan)
    largest = np.where(both, np.abs(first) + np.abs(second), 0).max(axis=0, initial=0)
    sd = np.where(np.sqrt(variance) > largest * 1e-14, np.sqrt(variance), np.nan)
    error, df = sd / np.sqrt(n.clip(1)), np.where(n > 1, n - 1, np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * error
    t = difference / error
    p = 2 * stats.t.sf(np.abs(t), df)
    columns |= {"difference": difference, "low": difference - half, "high": difference + half, "sd": sd}
    columns |= {"t": t, "p": p, "p_bh": benjamini_hochberg(p)}
    columns["status"] = np.select(
        [n < 2, np.isnan(t), n < MIN_CONFIDENT], ["too_few_prompts", "rank_deficient", "low_confidence"], "ok"
    )
    return pd.DataFrame(columns)


def _mean(values: Float64[np.ndarray, "prompts layers"], n: np.ndarray) -> Float64[np.ndarray, " layers"]:
    mean: Float64[np.ndarray, " layers"] = np.nansum(values, axis=0) / np.where(n > 0, n, np.nan)
    return mean
