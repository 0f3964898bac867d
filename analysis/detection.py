"""How early a stream tells: windows until a classifier's score crosses a threshold (core.md 1.8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from analysis.logistic import fit_logistic, standardised
from analysis.measured import Status
from analysis.prediction import outer_folds, refusal
from analysis.stream_features import prefix_summaries

__all__ = ["Detection", "time_to_detection"]

FALSE_ALARMS: Final = 0.05
WARM_UP: Final = 8
MIN_STREAMS: Final = 5


@dataclass(frozen=True, eq=False)
class Detection:
    """``table``: item, label, detected_at (windows seen when the score first crossed, missing if never), windows.

    ``detected`` is the share of positives found at all, ``median_windows`` over those that were, ``false_alarms`` the
    share of negatives that crossed: the threshold aims at 5 % per whole stream and is set on training streams only.
    """

    table: pd.DataFrame
    detected: float
    median_windows: float
    false_alarms: float
    status: Status


def time_to_detection(
    streams: Sequence[Float64[np.ndarray, "_ features"]],
    labels: Bool[np.ndarray, " items"],
    problems: Int[np.ndarray, " items"],
    *,
    seed: int = 0,
) -> Detection:
    """Fit on the summaries of whole training streams, then read every prefix of 8 windows or more of the others.

    A score counts in standard deviations of the training negatives at the same window, each scored by a model that did
    not see it: a slope over 8 windows is noise beside one over 80. The threshold is the 95 % quantile of the highest
    such score over a negative's prefixes. Windows that fewer than 5 training negatives reach are not read. Refusals as
    in :func:`analysis.prediction.predict`; a stream of fewer than 8 windows, or with a summary that is undefined, is left
    out.
    """
    prefixes = [prefix_summaries(stream)[WARM_UP - 1 :] for stream in streams]
    usable = np.array([len(one) > 0 and bool(np.isfinite(one).all()) for one in prefixes], dtype=bool)
    items = np.flatnonzero(usable)
    own, groups = labels[items], problems[items]
    status = refusal(own, groups)
    if status is not None:
        return Detection(pd.DataFrame(columns=["item", "label", "detected_at", "windows"]), nan, nan, nan, status)
    whole = np.stack([prefixes[i][-1] for i in items.tolist()])
    detected: dict[int, int | None] = {}
    for train, test in outer_folds(own, groups, seed):
        negatives: list[Float64[np.ndarray, " _"]] = []
        for inner, held in outer_folds(own[train], groups[train], seed):
            fitted = train[inner]
            held_out = [int(items[j]) for j in train[held] if not own[j]]
            negatives += _score(whole[fitted], own[fitted], [prefixes[i] for i in held_out])
        usual = _usual(negatives)
        highest = [float(_deviation(one, usual).max()) for one in negatives]
        threshold = float(np.quantile(highest, 1 - FALSE_ALARMS, method="higher"))
        tested = [int(items[j]) for j in test]
        scored = _score(whole[train], own[train], [prefixes[i] for i in tested])
        for i, score in zip(tested, scored, strict=True):
            above = np.flatnonzero(_deviation(score, usual) > threshold)
            detected[i] = int(above[0]) + WARM_UP if above.size else None
    at = pd.array([detected[int(i)] for i in items], dtype="Int64")
    windows = [len(streams[i]) for i in items.tolist()]
    table = pd.DataFrame({"item": items, "label": own, "detected_at": at, "windows": windows})
    found = table["detected_at"].notna()
    times = table.loc[found & table["label"], "detected_at"]
    return Detection(
        table=table,
        detected=float(found[own].mean()),
        median_windows=float(times.median()) if len(times) else nan,
        false_alarms=float(found[~own].mean()),
        status="ok",
    )


def _score(
    whole: Float64[np.ndarray, "n summaries"],
    labels: Bool[np.ndarray, " n"],
    prefixes: Sequence[Float64[np.ndarray, "_ summaries"]],
) -> list[Float64[np.ndarray, " _"]]:
    """Log odds at every prefix of each stream, by a model of the whole training streams."""
    if not prefixes:
        return []
    train, read = standardised(whole[None], np.concatenate(prefixes)[None])
    weights = fit_logistic(train, labels)[0]
    ends = np.cumsum([len(one) for one in prefixes])[:-1]
    return np.split(read[0] @ weights[:-1] + weights[-1], ends)


def _usual(scores: Sequence[Float64[np.ndarray, " _"]]) -> Float64[np.ndarray, "2 windows"]:
    """Mean and sd of the scores at each window that at least 5 streams reach."""
    lengths = sorted((len(one) for one in scores), reverse=True)
    read = lengths[MIN_STREAMS - 1]
    table = np.full((len(scores), read), np.nan)
    for row, one in zip(table, scores, strict=True):
        row[: len(one)] = one[:read]
    return np.stack([np.nanmean(table, axis=0), np.nanstd(table, axis=0, ddof=1)])


def _deviation(score: Float64[np.ndarray, " _"], usual: Float64[np.ndarray, "2 windows"]) -> Float64[np.ndarray, " _"]:
    n = min(len(score), usual.shape[1])
    deviation: Float64[np.ndarray, " _"] = (score[:n] - usual[0, :n]) / usual[1, :n].clip(1e-12)
    return deviation
