"""Whether a difference between two groups of prompts turns round between a base and an instruct model (core.md 1.6)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.groups import GroupComparison, Groups, compare_groups

__all__ = ["Reversal", "reversal"]


@dataclass(frozen=True, eq=False)
class Reversal:
    """The difference first - second in each model, and how much it moves from base to instruct.

    ``interaction`` compares each prompt's change (instruct less base) between the groups: its difference is
    Delta_instruct - Delta_base, its interval narrower than that of two independent samples, as prompts are the same.
    ``table`` has a row a layer: base, base_low, base_high, instruct, ..., interaction, ..., interaction_p_bh, reverses.
    ``reverses`` is the verdict on the mean over layers, None if there is none because of ``refusal`` or too few prompts.
    """

    base: GroupComparison
    instruct: GroupComparison
    interaction: GroupComparison
    table: pd.DataFrame
    reverses: bool | None
    refusal: str | None


def reversal(base: Groups, instruct: Groups, *, seed: int = 0) -> Reversal:
    """A reversal: the two differences have opposite signs and both 95 % intervals exclude 0.

    Rows of both models are the same prompts in the same order. Models with other layers than each other are compared by
    their mean over layers (one column). Raises ValueError where shapes differ.
    """
    for name, ours, theirs in (("first", base.first, instruct.first), ("second", base.second, instruct.second)):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"both models need the same prompts and layers in the {name} group, not {ours.shape} and {theirs.shape}"
            )
    before, after = compare_groups(base, seed=seed), compare_groups(instruct, seed=seed)
    tokens = instruct if after.refusal else base
    changes = Groups(
        instruct.first - base.first, instruct.second - base.second, tokens.first_tokens, tokens.second_tokens
    )
    moved = compare_groups(changes, seed=seed)
    table = pd.DataFrame({"layer": before.table["layer"]})
    for name, comparison in (("base", before), ("instruct", after), ("interaction", moved)):
        table[name] = comparison.table["difference"]
        table[f"{name}_low"], table[f"{name}_high"] = comparison.table["low"], comparison.table["high"]
    table["interaction_p_bh"] = moved.table["p_bh"]
    both = table[["base_low", "base_high", "instruct_low", "instruct_high"]]
    table["reverses"] = [_turned(*ends) for ends in both.itertuples(index=False)]
    verdict = _turned(*(float(one.overall[end]) for one in (before, after) for end in ("low", "high")))
    return Reversal(before, after, moved, table, verdict, before.refusal or after.refusal)


def _turned(base_low: float, base_high: float, instruct_low: float, instruct_high: float) -> bool | None:
    """None where an interval is missing."""
    if np.isnan([base_low, base_high, instruct_low, instruct_high]).any():
        return None
    return bool((base_low > 0 and instruct_high < 0) or (base_high < 0 and instruct_low > 0))
