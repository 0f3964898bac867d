"""Can a metric tell right answers from wrong ones (core.md 1.6)? Cross-validated so that no choice sees its own test.

Five folds, stratified, a problem never on both sides. Features are standardised on the training part; the layer is
chosen by folds inside it. Baselines are trained in the same folds; shuffled labels must come out at .5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int, Int64
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from analysis.inference import percentile_interval
from analysis.logistic import fit_logistic, standardised
from analysis.measured import Status
from analysis.roc import Roc, auc, fold_aucs, roc, undefined_roc

__all__ = [
    "MIN_ITEMS",
    "MIN_PER_CLASS",
    "Prediction",
    "PredictorTable",
    "compare_predictors",
    "outer_folds",
    "predict",
    "refusal",
]

FOLDS: Final = 5
MIN_ITEMS: Final = 50
MIN_PER_CLASS: Final = 10
SHUFFLES: Final = 10


@dataclass(frozen=True, eq=False)
class Prediction:
    """Out-of-fold scores (log odds) of every item, the fold it was tested in, and the layer each fold chose."""

    roc: Roc
    scores: Float64[np.ndarray, " items"]
    folds: Int64[np.ndarray, " items"]
    layers: Int64[np.ndarray, " folds"]


@dataclass(frozen=True, eq=False)
class PredictorTable:
    """Features and baselines in the same folds.

    ``table``: name, baseline (bool), auc, sd (over folds), low, high, n_positive, n_negative, layers (chosen, by fold),
    status. ``gains``: name, baseline, gain (AUC of the feature less that of the baseline), low, high (95 %, the same
    problems drawn for both). ``shuffled``: name, mean and sd of the AUC with labels permuted over items, the whole
    procedure repeated, layer choice included.
    """

    table: pd.DataFrame
    gains: pd.DataFrame
    shuffled: pd.DataFrame
    predictions: Mapping[str, Prediction]


def predict(
    features: Float64[np.ndarray, "items layers k"],
    labels: Bool[np.ndarray, " items"],
    problems: Int[np.ndarray, " items"],
    *,
    seed: int = 0,
) -> Prediction:
    """Nested cross-validation of a logistic regression (C = 1) on the k features of one layer.

    Layers that are undefined for any item are no candidates. One class is ``single_class``; fewer than 50 items, 10 of a
    class, or 5 problems with items of a class is ``too_few_prompts``; no candidate layer is ``not_applicable``.
    """
    n, n_positive = len(features), int(labels.sum())
    candidates = np.flatnonzero(np.isfinite(features).all(axis=(0, 2)))
    status = refusal(labels, problems) or (None if candidates.size else "not_applicable")
    if status is not None:
        none = undefined_roc(n_positive, n - n_positive, status)
        return Prediction(none, np.full(n, np.nan), np.full(n, -1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    scores, folds, layers = _cross_validated(features, candidates, labels, problems, seed)
    measured = roc(scores, labels, problems=problems, folds=folds, seed=seed)
    return Prediction(measured, scores, folds, layers)


def _cross_validated(
    features: Float64[np.ndarray, "items layers k"],
    candidates: Int64[np.ndarray, " candidates"],
    labels: Bool[np.ndarray, " items"],
    problems: Int[np.ndarray, " items"],
    seed: int,
) -> tuple[Float64[np.ndarray, " items"], Int64[np.ndarray, " items"], Int64[np.ndarray, " folds"]]:
    """Out-of-fold scores, the fold each item was tested in, and the layer of each fold."""
    scores, fold_of = np.full(len(features), np.nan), np.full(len(features), -1, dtype=np.int64)
    tables = np.ascontiguousarray(features[:, candidates].transpose(1, 0, 2))
    chosen = []
    for i, (train, test) in enumerate(outer_folds(labels, problems, seed)):
        layer = _best_layer(tables[:, train], labels[train], problems[train], seed)
        scores[test] = _scores(tables[layer : layer + 1, train], labels[train], tables[layer : layer + 1, test])[0]
        fold_of[test] = i
        chosen.append(int(candidates[layer]))
    return scores, fold_of, np.array(chosen, dtype=np.int64)


def compare_predictors(
    features: Mapping[str, Float64[np.ndarray, "items _ _"]],
    baselines: Mapping[str, Float64[np.ndarray, "items _"]],
    labels: Bool[np.ndarray, " items"],
    problems: Int[np.ndarray, " items"],
    *,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> PredictorTable:
    """Every feature [items, layers, k] and baseline [items, k] predicted, compared, and run on shuffled labels.

    Raises ValueError for a name that is both.
    """
    shared = sorted(features.keys() & baselines.keys())
    if shared:
        raise ValueError(f"a name is either a feature or a baseline, not both: {', '.join(shared)}")
    everything = dict(features) | {name: values[:, None, :] for name, values in baselines.items()}
    predictions = {name: predict(values, labels, problems, seed=seed) for name, values in everything.items()}
    rows = [_row(name, name in baselines, one) for name, one in predictions.items()]
    gains = [
        (name, other, *_gain(predictions[name].roc, predictions[other].roc)) for name in features for other in baselines
    ]
    rng = np.random.default_rng(seed)
    permuted = [rng.permutation(labels) for _ in range(shuffles)]
    shuffled = []
    for name in features:
        if predictions[name].roc.status == "ok":
            candidates = np.flatnonzero(np.isfinite(everything[name]).all(axis=(0, 2)))
            again = []
            for own in permuted:
                scores, folds, _ = _cross_validated(everything[name], candidates, own, problems, seed)
                again.append(float(fold_aucs(scores, own, folds).mean()))
            shuffled.append((name, float(np.mean(again)), float(np.std(again, ddof=1)), shuffles))
    return PredictorTable(
        table=pd.DataFrame(rows),
        gains=pd.DataFrame(gains, columns=["name", "baseline", "gain", "low", "high"]),
        shuffled=pd.DataFrame(shuffled, columns=["name", "mean", "sd", "shuffles"]),
        predictions=predictions,
    )


def outer_folds(
    labels: Bool[np.ndarray, " items"], problems: Int[np.ndarray, " items"], seed: int
) -> Iterator[tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " test"]]]:
    """Five folds (fewer if a class has fewer items), stratified by label, problems kept whole."""
    n_folds = max(2, min(FOLDS, int(labels.sum()), int((~labels).sum())))
    if np.unique(problems).size == problems.size:  # nothing to keep together, and twenty times faster
        yield from StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(problems, labels)
    else:
        grouped = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        yield from grouped.split(problems, labels, problems)


def refusal(labels: Bool[np.ndarray, " items"], problems: Int[np.ndarray, " items"]) -> Status | None:
    """Why these items cannot be predicted, None if they can."""
    if labels.all() or not labels.any():
        return "single_class"
    fewest = min(int(labels.sum()), int((~labels).sum()))
    own_problems = min(np.unique(problems[labels]).size, np.unique(problems[~labels]).size)
    enough = labels.size >= MIN_ITEMS and fewest >= MIN_PER_CLASS and own_problems >= FOLDS
    return None if enough else "too_few_prompts"


def _best_layer(
    tables: Float64[np.ndarray, "layers n k"],
    labels: Bool[np.ndarray, " n"],
    problems: Int[np.ndarray, " n"],
    seed: int,
) -> int:
    """The layer with the best mean AUC over folds inside the training part."""
    if len(tables) == 1:
        return 0
    found = []
    for train, test in outer_folds(labels, problems, seed):
        if labels[train].any() and not labels[train].all():
            found.append(auc(_scores(tables[:, train], labels[train], tables[:, test]), labels[test]))
    means = np.array(found)
    means = means[~np.isnan(means).any(axis=1)]
    return int(means.mean(axis=0).argmax()) if len(means) else 0


def _scores(
    train: Float64[np.ndarray, "layers n k"],
    labels: Bool[np.ndarray, " n"],
    test: Float64[np.ndarray, "layers m k"],
) -> Float64[np.ndarray, "layers m"]:
    """Log odds of the tested items by a model fitted on the training items."""
    train, test = standardised(train, test)
    weights = fit_logistic(train, labels)
    scores: Float64[np.ndarray, "layers m"] = np.einsum("lnk,lk->ln", test, weights[:, :-1]) + weights[:, -1:]
    return scores


def _row(name: str, baseline: bool, one: Prediction) -> dict[str, object]:
    found = one.roc
    numbers = {"auc": found.auc, "sd": found.sd, "low": found.low, "high": found.high}
    counts = {"n_positive": found.n_positive, "n_negative": found.n_negative}
    return {"name": name, "baseline": baseline} | numbers | counts | {"layers": one.layers, "status": found.status}


def _gain(feature: Roc, baseline: Roc) -> tuple[float, float, float]:
    if feature.status != "ok" or baseline.status != "ok":
        return float("nan"), float("nan"), float("nan")
    low, high = percentile_interval((feature.draws - baseline.draws)[:, None])
    return feature.auc - baseline.auc, float(low[0]), float(high[0])
