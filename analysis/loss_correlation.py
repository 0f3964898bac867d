"""Does a metric of a layer go with the loss, from prompt to prompt (core.md 6.3)?"""

from collections.abc import Sequence
from math import sqrt
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float64
from scipy import stats

from analysis.inference import LEVEL, benjamini_hochberg
from analysis.measured import Status

__all__ = ["MIN_PROMPTS", "loss_correlation", "type_token_ratio"]

MIN_PROMPTS: Final = 30


def type_token_ratio(tokens: Sequence[int]) -> float:
    """Different tokens over all tokens. Raises ValueError for an empty text."""
    if not tokens:
        raise ValueError("a type/token ratio needs at least one token")
    return len(set(tokens)) / len(tokens)


def loss_correlation(
    metric: Float64[np.ndarray, "prompts layers"],
    loss: Float64[np.ndarray, " prompts"],
    controls: Float64[np.ndarray, "prompts controls"],
) -> pd.DataFrame:
    """Correlate every layer's metric with the mean loss (nats a token) of each prompt.

    Rows by layer: n, spearman (low, high, p, p_bh), pearson (pearson_p), partial (partial_low, partial_high, partial_p,
    partial_p_bh), status. ``partial`` is the correlation of ranks after the ranks of the controls are regressed out.
    Intervals are 95 % by Fisher's z with the variance of Bonett and Wright 2000.

    ``controls``: number of tokens and type/token ratio, which move both. Prompts with anything undefined are left out
    of a layer; fewer than 30 is ``too_few_prompts``, a metric or loss without variance ``rank_deficient``. A control
    without variance controls nothing and changes nothing.
    """
    complete = np.isfinite(loss) & np.isfinite(controls).all(axis=1)
    rows = [
        _of_layer(*(part[complete & np.isfinite(one)] for part in (one, loss, controls))) | {"layer": layer}
        for layer, one in enumerate(metric.T)
    ]
    columns = ["layer", "n", "spearman", "low", "high", "p", "p_bh", "pearson", "pearson_p"]
    columns += ["partial", "partial_low", "partial_high", "partial_p", "partial_p_bh", "status"]
    table = pd.DataFrame(rows, columns=columns)
    for name in ("p", "partial_p"):
        table[f"{name}_bh"] = benjamini_hochberg(table[name].to_numpy(dtype=np.float64))
    return table


def _of_layer(
    metric: Float64[np.ndarray, " n"], loss: Float64[np.ndarray, " n"], controls: Float64[np.ndarray, "n controls"]
) -> dict[str, object]:
    n = metric.size
    status: Status = "ok"
    if n < MIN_PROMPTS:
        status = "too_few_prompts"
    elif np.ptp(metric) == 0 or np.ptp(loss) == 0:
        status = "rank_deficient"
    if status != "ok":
        return {"n": n, "status": status}
    ranked, linear = stats.spearmanr(metric, loss), stats.pearsonr(metric, loss)
    spearman = float(ranked.statistic)
    low, high = _interval(spearman, n)
    found = {"n": n, "status": status, "spearman": spearman, "low": low, "high": high, "p": float(ranked.pvalue)}
    found |= {"pearson": float(linear.statistic), "pearson_p": float(linear.pvalue)}
    ranks = [stats.rankdata(part, axis=0) for part in (metric, loss, controls)]
    varying = ranks[2][:, np.ptp(ranks[2], axis=0) > 0]
    left = [_without(rank, varying) for rank in ranks[:2]]
    if min(float(np.abs(part).max()) for part in left) < 1e-9 * n:
        return found  # the controls explain it all: nothing is left to correlate
    partial = float(np.clip(np.corrcoef(left[0], left[1])[0, 1], -1, 1))
    df = n - 2 - varying.shape[1]
    t = partial * sqrt(df / max(1 - partial**2, 1e-300))
    low, high = _interval(partial, n - varying.shape[1])
    return found | {
        "partial": partial,
        "partial_low": low,
        "partial_high": high,
        "partial_p": float(2 * stats.t.sf(abs(t), df)),
    }


def _without(values: Float64[np.ndarray, " n"], controls: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Residuals of least squares on the controls and a constant."""
    design = np.column_stack([np.ones(values.size), controls])
    residual: Float64[np.ndarray, " n"] = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return residual


def _interval(r: float, n: int) -> tuple[float, float]:
    """Fisher's z with variance (1 + r^2 / 2) / (n - 3); a correlation of 1 has no width."""
    if abs(r) >= 1:
        return r, r
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * sqrt((1 + r**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))
