"""Does a difference between two groups keep its sign under every convention of alpha (decision 2)?

The specification curve of :mod:`analysis.specification`, with prompts as the unit and one n for all of them.
"""

from dataclasses import dataclass

import pandas as pd

from analysis.groups import Groups, compare_groups
from analysis.specification import SignSurvival, convention_name

__all__ = ["CONVENTION", "GroupSpecification", "group_specification"]

CONVENTION = ["prep", "window", "estimator"]


@dataclass(frozen=True, eq=False)
class GroupSpecification:
    """One row a convention: prep, window, estimator, name, n_first, n_second, difference (first - second), low, high
    (95 % Welch interval), p, g, g_low, g_high, status, sorted by difference; undefined conventions come last.

    ``signs`` counts steeper and flatter among the defined ones. ``same_sign`` is the share of them that have the sign of
    the headline, NaN without a headline; ``clear_same`` and ``clear_other`` are how many have it, or the other one, with
    an interval that excludes 0.
    """

    table: pd.DataFrame
    signs: SignSurvival
    same_sign: float
    clear_same: int
    clear_other: int
    refusal: str | None


def group_specification(first: pd.DataFrame, second: pd.DataFrame, *, seed: int = 0) -> GroupSpecification:
    """Compare two groups of prompts at one layer (or of means over layers) under every convention.

    Both frames have columns prompt, prep, window, estimator, alpha, n_tokens: one row a prompt and convention. Groups
    that differ by more than 10 % in length have no intervals (``refusal``). Raises ValueError for repeated rows.
    """
    sides = []
    for frame in (first, second):
        if frame.duplicated(["prompt", *CONVENTION]).any():
            raise ValueError("each prompt needs one row a convention: pick one layer, or average over layers first")
        sides.append(frame.pivot(index="prompt", columns=CONVENTION, values="alpha"))
    conventions = sides[0].columns.union(sides[1].columns)
    values = [side.reindex(columns=conventions).to_numpy(dtype="float64") for side in sides]
    tokens = [
        frame.groupby("prompt")["n_tokens"].max().reindex(side.index).to_numpy(dtype="int64")
        for frame, side in zip((first, second), sides, strict=True)
    ]
    compared = compare_groups(Groups(values[0], values[1], tokens[0], tokens[1]), seed=seed)
    kept = ["n_first", "n_second", "difference", "low", "high", "p", "g", "g_low", "g_high", "status"]
    table = pd.concat([conventions.to_frame(index=False), compared.table[kept]], axis=1)
    names = [convention_name(*row) for row in conventions]
    table.insert(3, "name", names)
    table = table.sort_values("difference", kind="stable", na_position="last", ignore_index=True)
    return _summed_up(table, compared.refusal)


def _summed_up(table: pd.DataFrame, refusal: str | None) -> GroupSpecification:
    difference = table["difference"].dropna()
    signs = SignSurvival(int((difference > 0).sum()), int((difference < 0).sum()), len(difference))
    headline = table.loc[table["name"] == "headline", "difference"].dropna()
    if headline.empty:
        return GroupSpecification(table, signs, float("nan"), 0, 0, refusal)
    up, down = table["low"] > 0, table["high"] < 0
    same, other = (up, down) if headline.iloc[0] > 0 else (down, up)
    agree = signs.steeper if headline.iloc[0] > 0 else signs.flatter
    return GroupSpecification(table, signs, agree / signs.n_used, int(same.sum()), int(other.sum()), refusal)
