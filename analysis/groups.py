"""Two groups of prompts compared layer by layer: means with bands, Welch, Hedges g, Benjamini-Hochberg (core.md 1.6).

Nearly every geometry metric moves with the number of tokens alone (core.md 1.2), so a test is refused where the groups
differ in length: subsample both to one length first (:mod:`analysis.matched`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int
from scipy import stats

from analysis.inference import (
    LEVEL,
    MIN_CONFIDENT,
    benjamini_hochberg,
    bootstrap_means,
    complete_mean,
    percentile_interval,
)

__all__ = ["MAX_LENGTH_RATIO", "GroupComparison", "Groups", "compare_groups"]

MAX_LENGTH_RATIO: Final = 1.1
PERMUTATIONS: Final = 2000
ROUNDING: Final = 1e-14
TESTS = ["t", "df", "p", "p_permuted", "low", "high", "g_low", "g_high"]


@dataclass(frozen=True, eq=False)
class Groups:
    """A metric by prompt and layer in two groups, NaN where undefined.

    ``first_tokens`` and ``second_tokens`` are the tokens each prompt's value was made from, after any subsampling; None
    for a metric that does not depend on them. Raises ValueError for different layers, an empty group, or lengths that
    are missing or below 1.
    """

    first: Float64[np.ndarray, "prompts_a layers"]
    second: Float64[np.ndarray, "prompts_b _"]
    first_tokens: Int[np.ndarray, " _"] | None
    second_tokens: Int[np.ndarray, " _"] | None

    def __post_init__(self) -> None:
        if self.first.shape[1] != self.second.shape[1]:
            raise ValueError(f"both groups need the same layers, not {self.first.shape[1]} and {self.second.shape[1]}")
        for values, tokens in ((self.first, self.first_tokens), (self.second, self.second_tokens)):
            if len(values) == 0:
                raise ValueError("each group needs at least one prompt, not 0")
            if tokens is not None and len(tokens) != len(values):
                raise ValueError(f"every prompt needs its number of tokens: {len(tokens)} for {len(values)} prompts")
            if tokens is not None and tokens.min() < 1:
                raise ValueError(f"a prompt needs at least 1 token, not {tokens.min()}")

    @property
    def length_ratio(self) -> float:
        """Mean tokens of the longer group over that of the shorter; 1 where length does not matter."""
        if self.first_tokens is None or self.second_tokens is None:
            return 1.0
        means = sorted((float(self.first_tokens.mean()), float(self.second_tokens.mean())))
        return means[1] / means[0]


@dataclass(frozen=True, eq=False)
class GroupComparison:
    """First group against second.

    ``table`` has a row a layer: n_first, n_second (prompts used); mean_first, low_first, high_first and the same of the
    second (95 % bootstrap band over prompts); difference (first - second) with low, high (95 % Welch interval, which
    excludes 0 exactly where p < .05); t, df, p (Welch), p_bh (over layers), p_permuted (labels permuted); g with g_low,
    g_high (Hedges); status. ``overall`` is the same row for each prompt's mean over ``n_layers`` layers, those defined
    in all prompts; its p_bh is its p.

    ``refusal`` is why tests and intervals of the difference are missing; ``exploratory``: fewer than 20 in a group.
    """

    table: pd.DataFrame
    overall: pd.Series
    n_layers: int
    length_ratio: float
    refusal: str | None
    exploratory: bool


def compare_groups(groups: Groups, *, permutations: int = PERMUTATIONS, seed: int = 0) -> GroupComparison:
    """Test every layer and the mean over layers.

    A layer with fewer than 2 prompts in a group is ``too_few_prompts``, with fewer than 20 ``low_confidence``; one
    without any variance in both is ``rank_deficient``; groups that differ by more than 10 % in mean length are
    ``lengths_differ`` and keep only descriptive numbers.
    """
    ratio = groups.length_ratio
    refusal = None
    if ratio > MAX_LENGTH_RATIO:
        apart = 100 * (ratio - 1)
        refusal = f"the groups differ by {apart:.1f} % in length (at most 10 %): compare them at a matched length"
    table = _rows(groups.first, groups.second, permutations, seed, refused=refusal is not None)
    (first, second), n_layers = complete_mean(groups.first, groups.second)
    overall = _rows(first, second, permutations, seed, refused=refusal is not None).iloc[0].drop("layer")
    exploratory = min(len(groups.first), len(groups.second)) < MIN_CONFIDENT
    return GroupComparison(table, overall, n_layers, ratio, refusal, exploratory)


def _rows(
    first: Float64[np.ndarray, "prompts_a layers"],
    second: Float64[np.ndarray, "prompts_b layers"],
    permutations: int,
    seed: int,
    *,
    refused: bool,
) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {"layer": np.arange(first.shape[1])}
    for name, values in (("first", first), ("second", second)):
        columns[f"n_{name}"] = np.isfinite(values).sum(axis=0)
        columns[f"mean_{name}"] = _moments(values)[1]
        low, high = percentile_interval(bootstrap_means(values, seed=seed))
        columns[f"low_{name}"], columns[f"high_{name}"] = low, high
    columns["difference"] = columns["mean_first"] - columns["mean_second"]
    columns |= _welch(first, second)
    columns["p_permuted"] = _permuted(first, second, columns["t"], permutations, seed)
    columns |= _hedges(first, second)
    fewest = np.minimum(columns["n_first"], columns["n_second"])
    columns["status"] = np.select(
        [fewest < 2, np.isnan(columns["t"]), fewest < MIN_CONFIDENT],
        ["too_few_prompts", "rank_deficient", "low_confidence"],
        "ok",
    )
    table = pd.DataFrame(columns)
    if refused:
        table[TESTS] = np.nan
        table["status"] = table["status"].where(~table["status"].isin(["ok", "low_confidence"]), "lengths_differ")
    table.insert(table.columns.get_loc("p") + 1, "p_bh", benjamini_hochberg(table["p"].to_numpy(dtype=np.float64)))
    return table


def _moments(
    values: Float64[np.ndarray, "prompts layers"],
) -> tuple[Float64[np.ndarray, " layers"], Float64[np.ndarray, " layers"], Float64[np.ndarray, " layers"]]:
    """Number, mean and unbiased variance of the defined values of each layer; NaN where there are too few."""
    defined = np.isfinite(values)
    n = defined.sum(axis=0).astype(np.float64)
    mean = np.where(defined, values, 0).sum(axis=0) / np.where(n > 0, n, np.nan)
    squares = np.where(defined, values - mean, 0) ** 2
    spread = np.ptp(np.where(defined, values, mean), axis=0)
    constant = spread <= ROUNDING * np.abs(mean)
    variance = np.where(constant, 0.0, squares.sum(axis=0)) / np.where(n > 1, n - 1, np.nan)
    return n, mean, variance


def _welch(
    first: Float64[np.ndarray, "prompts_a layers"], second: Float64[np.ndarray, "prompts_b layers"]
) -> dict[str, np.ndarray]:
    """Welch's t, its degrees of freedom (Satterthwaite), two-sided p and interval; NaN without any variance."""
    (n1, mean1, var1), (n2, mean2, var2) = _moments(first), _moments(second)
    error1, error2 = var1 / n1.clip(1), var2 / n2.clip(1)
    total = np.where(error1 + error2 > 0, error1 + error2, np.nan)
    t = (mean1 - mean2) / np.sqrt(total)
    df = total**2 / (error1**2 / (n1 - 1).clip(1) + error2**2 / (n2 - 1).clip(1))
    half = stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(total)
    difference = mean1 - mean2
    return {"low": difference - half, "high": difference + half, "t": t, "df": df, "p": 2 * stats.t.sf(np.abs(t), df)}


def _hedges(
    first: Float64[np.ndarray, "prompts_a layers"], second: Float64[np.ndarray, "prompts_b layers"]
) -> dict[str, np.ndarray]:
    """Hedges g (pooled sd, small-sample factor 1 - 3/(4 df - 1)) and its large-sample interval.

    The interval is the delta method without equal variances, as in Bonett 2008: on normal data with 20 and 60 prompts
    and sds of 1 and 3 it covers 95 to 96 %, the textbook one 99 %.
    """
    (n1, mean1, var1), (n2, mean2, var2) = _moments(first), _moments(second)
    df = np.where((n1 > 1) & (n2 > 1), n1 + n2 - 2, np.nan)
    pooled = ((n1 - 1) * var1 + (n2 - 1) * var2) / df
    pooled = np.where(pooled > 0, pooled, np.nan)
    g = (mean1 - mean2) / np.sqrt(pooled) * (1 - 3 / (4 * df - 1))
    of_means = (var1 / n1.clip(1) + var2 / n2.clip(1)) / pooled
    of_sd = g**2 * ((n1 - 1) * var1**2 + (n2 - 1) * var2**2) / (2 * pooled**2 * df**2)
    half = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(of_means + of_sd)
    return {"g": g, "g_low": g - half, "g_high": g + half}


def _permuted(
    first: Float64[np.ndarray, "prompts_a layers"],
    second: Float64[np.ndarray, "prompts_b layers"],
    observed: Float64[np.ndarray, " layers"],
    permutations: int,
    seed: int,
) -> Float64[np.ndarray, " layers"]:
    """Two-sided p of Welch's t under permuted labels (Janssen 1997), (1 + extremes) / (1 + permutations).

    One permutation serves all layers. Studentised, it stays valid where the groups' variances differ.
    """
    both = np.concatenate([first, second])
    defined = np.isfinite(both)
    centre = _moments(both)[1]
    values = np.where(defined, both - np.where(np.isnan(centre), 0, centre), 0)
    labels = np.zeros((permutations, len(both)))
    labels[:, : len(first)] = 1
    labels = np.random.default_rng(seed).permuted(labels, axis=1)
    n1, n2 = _both_sides(labels, defined.astype(np.float64))
    usable = (n1 > 1) & (n2 > 1)
    n1, n2 = n1.clip(2), n2.clip(2)
    (sum1, sum2), (square1, square2) = _both_sides(labels, values), _both_sides(labels, values**2)
    error1 = (square1 - sum1**2 / n1).clip(0) / (n1 - 1) / n1
    error2 = (square2 - sum2**2 / n2).clip(0) / (n2 - 1) / n2
    gap, error = np.abs(sum1 / n1 - sum2 / n2), np.sqrt(error1 + error2)
    extreme = usable & (gap >= np.abs(observed) * error * (1 - 1e-9))
    p = (1 + extreme.sum(axis=0)) / (1 + usable.sum(axis=0))
    return np.where(np.isnan(observed), np.nan, p)


def _both_sides(
    labels: Float64[np.ndarray, "permutations prompts"], values: Float64[np.ndarray, "prompts layers"]
) -> tuple[Float64[np.ndarray, "permutations layers"], Float64[np.ndarray, "permutations layers"]]:
    """Sums over the prompts labelled 1 and over the others."""
    ones = labels @ values
    return ones, values.sum(axis=0) - ones
