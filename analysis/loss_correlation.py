"""Does geometry go with loss? Rank correlation over prompts, layer by layer, with length and vocabulary held fixed."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy import stats

from analysis.measured import Status

__all__ = ["MIN_PROMPTS", "LossCorrelation", "loss_correlation"]

MIN_PROMPTS = 30


@dataclass(frozen=True, slots=True)
class LossCorrelation:
    """Of one layer, over ``n_used`` prompts at which it is defined; all NaN unless the status is ``ok``.

    ``partial`` is Spearman's rho with the controls regressed out of both rank vectors, ``partial_p`` its two-sided p on
    n - 2 - controls degrees of freedom, ``partial_q`` that after Benjamini and Hochberg over the layers.
    """

    n_used: int
    status: Status
    spearman: float = np.nan
    spearman_p: float = np.nan
    pearson: float = np.nan
    partial: float = np.nan
    partial_p: float = np.nan
    partial_q: float = np.nan


def loss_correlation(
    loss: Float64[np.ndarray, " prompts"],
    metric: Float64[np.ndarray, "layers prompts"],
    controls: Float64[np.ndarray, "controls prompts"],
) -> tuple[LossCorrelation, ...]:
    """Correlation of a prompt's mean loss (nats) with a metric of each layer; the prompt is the unit, never the token.

    ``controls`` are what both may follow: number of tokens, type/token ratio. A layer with fewer than 30 prompts at which
    everything is defined is ``too_few_tokens``; one where loss or metric is constant is ``rank_deficient``.
    """
    found = [_of_layer(loss, row, controls) for row in metric]
    defined = [i for i, one in enumerate(found) if one.status == "ok"]
    if defined:
        adjusted = stats.false_discovery_control([found[i].partial_p for i in defined])
        for i, q in zip(defined, adjusted, strict=True):
            found[i] = replace(found[i], partial_q=float(q))
    return tuple(found)


def _of_layer(
    loss: Float64[np.ndarray, " prompts"],
    metric: Float64[np.ndarray, " prompts"],
    controls: Float64[np.ndarray, "controls prompts"],
) -> LossCorrelation:
    whole = np.isfinite(loss) & np.isfinite(metric) & np.isfinite(controls).all(axis=0)
    n = int(whole.sum())
    if n < MIN_PROMPTS:
        return LossCorrelation(n, "too_few_tokens")
    x, y, known = loss[whole], metric[whole], controls[:, whole]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return LossCorrelation(n, "rank_deficient")
    spearman = stats.spearmanr(x, y)
    partial = _partial(stats.rankdata(x), stats.rankdata(y), stats.rankdata(known, axis=1))
    freedom = n - 2 - len(known)
    t = partial * np.sqrt(freedom / max(1 - partial**2, np.finfo(float).tiny))
    return LossCorrelation(
        n,
        "ok",
        float(spearman.statistic),
        float(spearman.pvalue),
        float(stats.pearsonr(x, y).statistic),
        partial,
        float(2 * stats.t.sf(abs(t), freedom)),
    )


def _partial(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> float:
    """Pearson of what is left of x and y after a least-squares fit on the controls and a constant."""
    design = np.vstack([np.ones(len(x)), known]).T
    left = [values - design @ np.linalg.lstsq(design, values)[0] for values in (x, y)]
    norms = float(np.linalg.norm(left[0]) * np.linalg.norm(left[1]))
    return float(left[0] @ left[1]) / norms if norms > 1e-9 else 0.0
