"""How well a score tells two classes apart: ROC-AUC over folds with bootstrap intervals and bands (core.md 1.6, 4.1)."""

from dataclasses import dataclass, field
from math import nan
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy.stats import rankdata

from analysis.inference import RESAMPLES, percentile_interval, resampled_counts
from analysis.measured import Status

__all__ = ["FPR", "Roc", "auc", "fold_aucs", "roc", "undefined_roc"]

FPR: Final = np.linspace(0, 1, 51)
"""False positive rates at which curves are given."""


@dataclass(frozen=True, eq=False)
class Roc:
    """ROC-AUC as the mean over folds that have both classes, with ``sd`` over folds (NaN for one fold).

    ``low`` and ``high``: 95 % interval of that mean when whole problems are drawn with replacement within folds, which
    does not include the chance of other folds or of other training data. ``tpr`` with its band ``tpr_low``, ``tpr_high``
    is the mean of the folds' curves at ``FPR``. ``draws`` are the resampled AUCs: the same problems in every score of
    the same items, so that two scores can be compared draw by draw.
    """

    auc: float
    sd: float
    low: float
    high: float
    n_positive: int
    n_negative: int
    n_folds: int
    status: Status
    tpr: Float64[np.ndarray, " fpr"] = field(default_factory=lambda: np.full(FPR.size, nan))
    tpr_low: Float64[np.ndarray, " fpr"] = field(default_factory=lambda: np.full(FPR.size, nan))
    tpr_high: Float64[np.ndarray, " fpr"] = field(default_factory=lambda: np.full(FPR.size, nan))
    draws: Float64[np.ndarray, " resamples"] = field(default_factory=lambda: np.zeros(0))


def undefined_roc(n_positive: int, n_negative: int, status: Status) -> Roc:
    """No curve, and why."""
    return Roc(nan, nan, nan, nan, n_positive, n_negative, 0, status)


def auc(
    scores: Float64[np.ndarray, "*tables items"], labels: Bool[np.ndarray, " items"]
) -> Float64[np.ndarray, "*tables"]:
    """Chance that a positive scores above a negative, ties counting half; NaN where one class is missing."""
    n_positive = int(labels.sum())
    n_negative = labels.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return np.full(scores.shape[:-1], nan)
    ranks = rankdata(scores, axis=-1)
    above = ranks[..., labels].sum(axis=-1) - n_positive * (n_positive + 1) / 2
    return np.asarray(above / (n_positive * n_negative), dtype=np.float64)


def fold_aucs(
    scores: Float64[np.ndarray, " items"], labels: Bool[np.ndarray, " items"], folds: Int[np.ndarray, " items"]
) -> Float64[np.ndarray, " folds"]:
    """The AUC within each fold that has both classes: scores of other models are never compared."""
    parts = [folds == one for one in np.unique(folds)]
    found = np.array([float(auc(scores[part], labels[part])) for part in parts], dtype=np.float64)
    return found[np.isfinite(found)]


def roc(
    scores: Float64[np.ndarray, " items"],
    labels: Bool[np.ndarray, " items"],
    *,
    problems: Int[np.ndarray, " items"] | None = None,
    folds: Int[np.ndarray, " items"] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Roc:
    """The ROC of scores that were not fitted on the items they score; higher means positive.

    ``problems`` groups items that are drawn together (each its own without), ``folds`` says which model made a score.
    Items without a score are left out. One class is ``single_class``, never .5.
    """
    scored = np.isfinite(scores)
    scores, labels = scores[scored], labels[scored]
    groups = np.arange(scores.size) if problems is None else problems[scored]
    fold = np.zeros(scores.size, dtype=np.int64) if folds is None else folds[scored]
    n_positive = int(labels.sum())
    n_negative = int(labels.size - n_positive)
    parts = [fold == one for one in np.unique(fold)]
    parts = [part for part in parts if labels[part].any() and not labels[part].all()]
    if not parts:
        return undefined_roc(n_positive, n_negative, "single_class")
    of_fold = fold_aucs(scores, labels, fold)
    drawn, curves, curve = [], [], []
    for i, part in enumerate(parts):
        own, index = np.unique(groups[part], return_inverse=True)
        weight = resampled_counts(own.size, resamples, seed + i)[:, index].astype(np.float64)
        one = np.concatenate([np.ones((1, weight.shape[1])), weight])
        areas, rates = _weighted(scores[part], labels[part], one)
        drawn.append(areas[1:])
        curve.append(rates[0])
        curves.append(rates[1:])
    draws = _mean_of_defined(np.stack(drawn))
    low, high = percentile_interval(draws[:, None])
    tpr_low, tpr_high = percentile_interval(_mean_of_defined(np.stack(curves)))
    return Roc(
        auc=float(of_fold.mean()),
        sd=float(of_fold.std(ddof=1)) if of_fold.size > 1 else nan,
        low=float(low[0]),
        high=float(high[0]),
        n_positive=n_positive,
        n_negative=n_negative,
        n_folds=of_fold.size,
        status="ok",
        tpr=np.mean(curve, axis=0),
        tpr_low=tpr_low,
        tpr_high=tpr_high,
        draws=draws,
    )


def _weighted(
    scores: Float64[np.ndarray, " items"],
    labels: Bool[np.ndarray, " items"],
    weight: Float64[np.ndarray, "draws items"],
) -> tuple[Float64[np.ndarray, " draws"], Float64[np.ndarray, "draws fpr"]]:
    """AUC and curve with items counted ``weight`` times; NaN for draws without one of the classes."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    sorted_weight, positive = weight[:, order], labels[order]
    true = np.cumsum(sorted_weight * positive, axis=1)[:, last_of_tie]
    false = np.cumsum(sorted_weight * ~positive, axis=1)[:, last_of_tie]
    start = np.zeros((len(weight), 1))
    true = np.concatenate([start, true], axis=1) / np.where(true[:, -1:] > 0, true[:, -1:], nan)
    false = np.concatenate([start, false], axis=1) / np.where(false[:, -1:] > 0, false[:, -1:], nan)
    rates = np.full((len(weight), FPR.size), nan)
    for i in np.flatnonzero(np.isfinite(true[:, -1]) & np.isfinite(false[:, -1])):
        rates[i] = np.interp(FPR, false[i], true[i])
    return np.asarray(np.trapezoid(true, false, axis=1)), rates


def _mean_of_defined(values: Float64[np.ndarray, "folds *rest"]) -> Float64[np.ndarray, "*rest"]:
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    mean: Float64[np.ndarray, "*rest"] = np.where(defined, values, 0).sum(axis=0) / np.where(count > 0, count, nan)
    return mean
