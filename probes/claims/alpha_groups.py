"""Alpha of reasoning and of factual prompts at one length, which several claims compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from analysis.groups import GroupComparison, Groups, compare_groups
from analysis.matched import alpha_of, matched_spectra, mean_over_draws
from analysis.nulls import permuted_null
from analysis.preparation import prepare
from analysis.spectrum import spectrum
from analysis.windows import MIN_WINDOW
from probes.claims.bench import Bench, Item
from probes.claims.claim import Untestable

__all__ = ["FACTUAL", "REASONING", "AlphaGroups", "alpha_groups", "compared_alpha", "shortest"]

REASONING, FACTUAL = "reasoning", "factual"
_DRAWS = 4  # windows of a prompt: those of the built-in set leave no more than nine
_NULL_DRAWS = 2
_MIN_PROMPTS = 2


@dataclass(frozen=True, eq=False)
class AlphaGroups:
    """Alpha (all usable ranks of the normed states) by prompt and point, reasoning first, and the same of the null:
    columns permuted over tokens. All at ``n_tokens`` tokens."""

    alpha: Groups
    null: Groups
    n_tokens: int


def alpha_groups(bench: Bench, n_tokens: int | None = None) -> AlphaGroups:
    """Measure both groups of the bench's set at ``n_tokens`` tokens, left out at the length of the shortest prompt.

    Raises Untestable where the set lacks one of the groups or its prompts are too short.
    """
    items = _items(bench)
    groups = bench.paired([item.prompt.group for item in items])
    counts = [groups.count(name) for name in (REASONING, FACTUAL)]
    if min(counts) < _MIN_PROMPTS:
        raise Untestable(
            f"The set {bench.prompts.name} has {counts[0]} prompts of the group {REASONING} and {counts[1]} of "
            f"{FACTUAL} that the model can take; it takes at least {_MIN_PROMPTS} of each."
        )
    n = shortest(bench) if n_tokens is None else n_tokens
    key = ("alpha at one length", bench.model, bench.prompts.set_id, n)
    if key not in bench.memo:
        bench.memo[key] = _measured(bench, n)
    by_run = bench.memo[key]
    sides = []
    for kind in (0, 1):
        rows = [np.stack([by_run[i.run_id][kind] for i, own in zip(items, groups, strict=True) if own == name])
                for name in (REASONING, FACTUAL)]  # fmt: skip
        tokens = [np.full(len(side), n) for side in rows]
        sides.append(Groups(rows[0], rows[1], tokens[0], tokens[1]))
    return AlphaGroups(sides[0], sides[1], n)


def compared_alpha(bench: Bench) -> tuple[GroupComparison, GroupComparison, int]:
    """The comparison of alpha, that of the null, and the tokens both were made of."""
    found = alpha_groups(bench)
    return compare_groups(found.alpha, seed=bench.seed), compare_groups(found.null, seed=bench.seed), found.n_tokens


def shortest(bench: Bench) -> int:
    """Tokens of the shortest prompt of both groups. Raises Untestable where that is too short for any alpha, or there is none."""
    items = _items(bench)
    if not items:
        raise Untestable(f"The set {bench.prompts.name} has no prompt of the groups {REASONING} and {FACTUAL}.")
    n = min(bench.capture(item).n_tokens for item in items)
    if n < MIN_WINDOW:
        raise Untestable(f"The shortest prompt has {n} tokens; alpha at a matched length takes {MIN_WINDOW}.")
    return n


def _items(bench: Bench) -> list[Item]:
    return [item for item in bench.items() if item.prompt.group in (REASONING, FACTUAL)]


def _measured(bench: Bench, n: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Alpha and null alpha [points] of every prompt of the groups at n tokens, by its run."""
    items, found = _items(bench), {}
    for place, item in enumerate(items):
        bench.told(place, len(items), "spectra of")
        resid = bench.resid(item)
        keep = torch.ones(resid.shape[1], dtype=torch.bool)
        spectra = matched_spectra(resid, n, keep, normed=True, draws=_DRAWS, seed=bench.seed)
        alpha = np.array([mean_over_draws(point, alpha_of()).value for point in spectra])
        found[item.run_id] = alpha, np.array([_null_alpha(point[:n], bench.seed) for point in resid])
    return found


def _null_alpha(rows: torch.Tensor, seed: int) -> float:
    x = prepare(rows, torch.ones(len(rows), dtype=torch.bool), normed=True)
    observed = spectrum(x)
    return permuted_null(x, observed, draws=_NULL_DRAWS, seed=seed).alpha
