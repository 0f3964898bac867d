"""Two groups of a prompt set compared, and two models over one set, from stored runs. No streamlit."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from analysis.group_specification import GroupSpecification, group_specification
from analysis.groups import GroupComparison, Groups, compare_groups
from analysis.inference import complete_mean
from analysis.windows import MIN_WINDOW
from app.services import Services
from app.sweeps import facts_of, survey
from probes.errors import BadRequest
from probes.matched import CONVENTIONS, alpha_name
from probes.model.loaded import ModelFacts
from probes.request import ProbeCall
from probes.set_sweep import SetAsk
from probes.set_values import SetValues, set_values

__all__ = [
    "UNGROUPED", "GroupAsk", "Measured", "compared", "matched_ask", "matched_length", "measured", "metric_names", "specified",
]  # fmt: skip

UNGROUPED = "no group"


@dataclass(frozen=True)
class GroupAsk:
    """Which groups of a set are compared by which metric. ``n`` tokens a window; 0: every prompt at its own length."""

    asked: SetAsk
    first: str
    second: str
    metric: str = "alpha_sigma"
    n: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric of the prompts of a set that were run: ids, groups, values [prompts, points], run ids, tokens."""

    values: SetValues
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    runs: tuple[str, ...]  # of the default probes: what a click opens

    def of(self, group: str) -> Bool[np.ndarray, " prompts"]:
        """Which prompts are of a group."""
        return np.array([one == group for one in self.groups])


def matched_ask(asked: SetAsk, n: int) -> SetAsk:
    """The set asked for its spectra at ``n`` tokens."""
    return dataclasses.replace(asked, like=asked.like.with_probes(ProbeCall("matched", {"n": n})))


def measured(held: Services, ask: GroupAsk) -> Measured:
    """The metric of every prompt that was run. Raises BadRequest where none was, or none has it."""
    facts = _facts(held, ask.asked)
    table = survey(held, matched_ask(ask.asked, ask.n) if ask.n else ask.asked, facts).table
    plain = survey(held, ask.asked, facts).table["run_id"] if ask.n else table["run_id"]
    kept = table["run_id"].notna().to_numpy()
    if not kept.any():
        raise BadRequest(f"No prompt of {ask.asked.prompts.name} was run on {ask.asked.like.model} yet.")
    table, plain = table[kept], plain[kept]
    found = set_values(held.store, tuple(table["run_id"]), ask.metric)
    groups = tuple(table["group"].fillna(UNGROUPED))
    opens = tuple(own if isinstance(own, str) else run for own, run in zip(plain, table["run_id"], strict=True))
    return Measured(found, tuple(table["id"]), groups, opens)


def compared(held: Services, ask: GroupAsk) -> tuple[GroupComparison, Measured]:
    """The two groups layer by layer. Raises BadRequest for a group without a prompt that was run, or equal groups."""
    if ask.first == ask.second:
        raise BadRequest(f"A comparison takes two groups, not {ask.first!r} twice.")
    found = measured(held, ask)
    sides = []
    for group in (ask.first, ask.second):
        own = found.of(group)
        if not own.any():
            raise BadRequest(f"No prompt of the group {group[:64]!r} was run yet.")
        sides.append(found.values.part(own))
    tokens = [np.full(len(side.run_ids), ask.n) if ask.n else side.tokens for side in sides]
    groups = Groups(sides[0].values, sides[1].values, tokens[0], tokens[1])
    key = ("groups", ask.metric, found.values.run_ids, found.groups, ask.first, ask.second, ask.n)
    comparison: GroupComparison = held.memo.get(key, lambda: compare_groups(groups))
    return comparison, found


def matched_length(held: Services, ask: GroupAsk) -> int:
    """The largest number of tokens at which both groups can be compared: what the strictest mask keeps of the shortest
    prompt. Raises BadRequest where the sets were not run, or that is below 5."""
    found = measured(held, dataclasses.replace(ask, n=0))
    own = found.values.part(found.of(ask.first) | found.of(ask.second)).run_ids
    masked = ("alpha_sigma", "alpha_sigma@raw_no_bos", "alpha_sigma@raw_no_sink")
    kept = [held.store.layer_values(own, name)["n_used"] for name in masked]
    n = min((int(one.min()) for one in kept if len(one)), default=0)
    if n < MIN_WINDOW:
        raise BadRequest(f"The shortest prompt keeps {n} tokens: a matched length needs at least {MIN_WINDOW}.")
    return n


def specified(held: Services, ask: GroupAsk, layer: int | None) -> GroupSpecification:
    """The difference under every convention of alpha, at a point, or of means over points (None), at ``ask.n`` tokens."""
    arrays, found = _conventions(held, ask)
    sides = [arrays[:, found.of(group)] for group in (ask.first, ask.second)]
    if layer is None:  # over the points that are defined in both groups
        means = [complete_mean(*both)[0] for both in zip(*sides, strict=True)]
        alphas = [np.stack([mean[side][:, 0] for mean in means]) for side in (0, 1)]
    else:
        alphas = [side[:, :, layer] for side in sides]
    return group_specification(*(_frame(alpha, ask.n) for alpha in alphas))


def _conventions(held: Services, ask: GroupAsk) -> tuple[Float64[np.ndarray, "conventions prompts points"], Measured]:
    found = measured(held, dataclasses.replace(ask, metric="alpha_sigma"))

    def read() -> Float64[np.ndarray, "conventions prompts points"]:
        return np.stack([set_values(held.store, found.values.run_ids, alpha_name(*one)).values for one in CONVENTIONS])

    return held.memo.get(("conventions", found.values.run_ids), read), found


def _frame(alphas: Float64[np.ndarray, "conventions prompts"], n: int) -> pd.DataFrame:
    """One row a prompt and convention, as :func:`analysis.group_specification.group_specification` takes them."""
    rows = [
        (prompt, *convention, value, n)
        for convention, own in zip(CONVENTIONS, alphas, strict=True)
        for prompt, value in enumerate(own)
    ]
    return pd.DataFrame(rows, columns=["prompt", "prep", "window", "estimator", "alpha", "n_tokens"])


def metric_names(held: Services, found_runs: tuple[str, ...]) -> list[str]:
    """What the runs of a set can be compared by."""
    first = found_runs[0]
    names: list[str] = held.memo.get(("metric names", first), lambda: held.store.layer_metric_names(first))
    return names


def _facts(held: Services, asked: SetAsk) -> ModelFacts:
    facts = facts_of(held, asked.like.model, asked.like.dtype)
    if facts is None:
        raise BadRequest(f"{asked.like.model} was neither loaded nor run yet.")
    return facts
