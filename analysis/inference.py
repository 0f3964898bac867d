"""The statistical defaults every comparison shares: seeded bootstrap over prompts, percentiles, Benjamini-Hochberg.

The unit of replication is the prompt (core.md section 0): a row is one prompt, a column one layer, convention or
distance, and a row is drawn or left out as a whole.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import stats

__all__ = [
    "LEVEL",
    "MIN_CONFIDENT",
    "RESAMPLES",
    "benjamini_hochberg",
    "bootstrap_means",
    "complete_mean",
    "defined_rows",
    "percentile_interval",
    "resampled_counts",
]

RESAMPLES = 2000
LEVEL = 0.95
MIN_CONFIDENT = 20
"""Prompts (of each group) below which a comparison is exploratory."""


def resampled_counts(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Int64[np.ndarray, "resamples n"]:
    """How often each of ``n`` units stands in each resample of size ``n``; the same seed gives the same resamples."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def defined_rows(
    values: Float64[np.ndarray, "rows columns"],
) -> Iterator[tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " columns"]]]:
    """The columns that are defined on the same rows, with those rows; columns defined nowhere are left out."""
    defined = np.isfinite(values)
    keys = [column.tobytes() for column in defined.T]
    for key in dict.fromkeys(keys):
        columns = np.array([own == key for own in keys])
        rows = defined[:, columns.argmax()]
        if rows.any():
            yield rows, columns


def bootstrap_means(
    values: Float64[np.ndarray, "rows columns"], resamples: int = RESAMPLES, seed: int = 0
) -> Float64[np.ndarray, "resamples columns"]:
    """Means of each column over rows drawn with replacement from those on which it is defined; NaN if on none."""
    means = np.full((resamples, values.shape[1]), np.nan)
    for rows, columns in defined_rows(values):
        n = int(rows.sum())
        means[:, columns] = resampled_counts(n, resamples, seed) @ values[np.ix_(rows, columns)] / n
    return means


def percentile_interval(
    draws: Float64[np.ndarray, "draws columns"], level: float = LEVEL
) -> tuple[Float64[np.ndarray, " columns"], Float64[np.ndarray, " columns"]]:
    """The central ``level`` of the defined draws of each column; NaN where none is defined.

    Ends are draws themselves, never between two, so that infinite draws keep their meaning.
    """
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    for rows, columns in _not_nan(draws):
        own = draws[np.ix_(rows, columns)]
        low[columns] = np.quantile(own, (1 - level) / 2, axis=0, method="lower")
        high[columns] = np.quantile(own, (1 + level) / 2, axis=0, method="higher")
    return low, high


def benjamini_hochberg(p: Float64[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """Adjusted p-values over the tests that have one (Benjamini and Hochberg 1995); the others stay NaN."""
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def complete_mean(
    *tables: Float64[np.ndarray, "_ columns"],
) -> tuple[tuple[Float64[np.ndarray, "_ 1"], ...], int]:
    """Each row's mean over the columns that are defined in every row of every table, and how many those are.

    Otherwise rows would be means over different layers. NaN where no column is complete.
    """
    complete = np.logical_and.reduce([np.isfinite(table).all(axis=0) for table in tables])
    if not complete.any():
        return tuple(np.full((len(table), 1), np.nan) for table in tables), 0
    return tuple(table[:, complete].mean(axis=1, keepdims=True) for table in tables), int(complete.sum())


def _not_nan(
    draws: Float64[np.ndarray, "rows columns"],
) -> Iterator[tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " columns"]]]:
    return defined_rows(np.where(np.isnan(draws), np.nan, 0.0))
